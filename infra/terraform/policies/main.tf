# The rights of each role as JSON. No resources and no provider: any Terraform can compute them, and a test can read them.
terraform {
  required_version = ">= 1.9"
}

locals {
  issuer = trimprefix(var.issuer, "https://")

  read  = ["s3:GetObject"]
  write = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]

  accounts = {
    # Only the server accesses its bucket; clients send files to the server.
    mlflow = {
      description = "MLflow's server stores runs and models"
      subjects    = ["system:serviceaccount:cxr:mlflow"]
      reads       = ["mlflow"]
      writes      = ["mlflow"]
    }
    # Steps fetch the data that people push, and pass files to each other.
    pipeline = {
      description = "Steps of the pipelines"
      subjects    = [for namespace in var.pipeline_namespaces : "system:serviceaccount:${namespace}:cxr-pipeline"]
      reads       = ["dvc", "kubeflow"]
      writes      = ["kubeflow"]
    }
  }
}

output "roles" {
  description = "By role: description, trust (who may use the role) and rights (what it may do). Trust and rights are JSON."
  value = {
    for name, account in local.accounts : name => {
      description = account.description
      trust = jsonencode({
        Version = "2012-10-17"
        Statement = [{
          Effect    = "Allow"
          Action    = "sts:AssumeRoleWithWebIdentity"
          Principal = { Federated = var.provider_arn }
          Condition = {
            StringEquals = {
              "${local.issuer}:aud" = "sts.amazonaws.com"
              "${local.issuer}:sub" = account.subjects
            }
          }
        }]
      })
      rights = jsonencode({
        Version = "2012-10-17"
        Statement = [
          {
            Sid      = "List"
            Effect   = "Allow"
            Action   = ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"]
            Resource = [for bucket in account.reads : var.buckets[bucket]]
          },
          {
            Sid      = "Read"
            Effect   = "Allow"
            Action   = local.read
            Resource = [for bucket in account.reads : "${var.buckets[bucket]}/*"]
          },
          {
            Sid      = "Write"
            Effect   = "Allow"
            Action   = local.write
            Resource = [for bucket in account.writes : "${var.buckets[bucket]}/*"]
          },
          {
            Sid       = "Key"
            Effect    = "Allow"
            Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
            Resource  = [var.key]
            Condition = { StringLike = { "kms:ViaService" = "s3.*.amazonaws.com" } }
          },
        ]
      })
    }
  }
}

output "tls_only" {
  description = "Policy of each bucket as JSON: access only with TLS."
  value = {
    for name, arn in var.buckets : name => jsonencode({
      Version = "2012-10-17"
      Statement = [{
        Sid       = "OnlyTls"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [arn, "${arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }]
    })
  }
}
