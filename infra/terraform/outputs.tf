output "buckets" {
  description = "Names of the buckets by their use: dvc, mlflow, kubeflow."
  value       = { for name, bucket in aws_s3_bucket.this : name => bucket.bucket }
}

output "registry" {
  description = "Registry to log in to; the names of the images begin with it."
  value       = local.registry
}

output "roles" {
  description = "Roles of the service accounts mlflow and cxr-pipeline."
  value       = { for name, role in aws_iam_role.this : name => role.arn }
}

output "site_env" {
  description = "Lines for infra/kubernetes/overlays/production/site.env; MLFLOW_HOST and DATABASE_HOST are yours."
  value       = <<-EOT
    REGISTRY=${local.registry}
    MLFLOW_ARTIFACTS=s3://${aws_s3_bucket.this["mlflow"].bucket}
    PIPELINE_ROOT=s3://${aws_s3_bucket.this["kubeflow"].bucket}/runs
    MLFLOW_ROLE=${aws_iam_role.this["mlflow"].arn}
    PIPELINE_ROLE=${aws_iam_role.this["pipeline"].arn}
  EOT
}

locals {
  registry = split("/", aws_ecr_repository.this["cxr-mlflow"].repository_url)[0]
}
