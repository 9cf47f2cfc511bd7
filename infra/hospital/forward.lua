-- Orthanc sends each new radiograph to the node, and nothing that the node has sent. It tries once: what it stores while the
-- node is away has to be sent by hand, on its page. A PACS keeps a queue.
function OnStoredInstance(instance, tags, metadata, origin)
  if tags['Modality'] == 'CR' or tags['Modality'] == 'DX' then
    SendToModality(instance, 'cxr')
  end
end
