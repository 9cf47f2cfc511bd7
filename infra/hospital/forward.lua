-- Orthanc sends each new radiograph to the node, and nothing that the node has sent.
function OnStoredInstance(instance, tags, metadata, origin)
  if tags['Modality'] == 'CR' or tags['Modality'] == 'DX' then
    SendToModality(instance, 'cxr')
  end
end
