# Service accounts of the cluster use these roles. No key is stored anywhere.
data "aws_iam_openid_connect_provider" "cluster" {
  url = var.cluster_issuer
}

module "policies" {
  source = "./policies"

  buckets             = { for name, bucket in aws_s3_bucket.this : name => bucket.arn }
  key                 = aws_kms_key.buckets.arn
  issuer              = var.cluster_issuer
  provider_arn        = data.aws_iam_openid_connect_provider.cluster.arn
  pipeline_namespaces = var.pipeline_namespaces
}

resource "aws_iam_role" "this" {
  for_each = module.policies.roles

  name                 = "${var.prefix}-${each.key}"
  description          = each.value.description
  assume_role_policy   = each.value.trust
  max_session_duration = 43200
}

resource "aws_iam_role_policy" "this" {
  for_each = module.policies.roles

  name   = "buckets"
  role   = aws_iam_role.this[each.key].id
  policy = each.value.rights
}
