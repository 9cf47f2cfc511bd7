variable "account" {
  description = "Number of the AWS account. Terraform stops if the keys belong to another account."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account))
    error_message = "expected 12 digits, received account=${var.account}; see aws sts get-caller-identity"
  }
}

variable "region" {
  description = "AWS region of the cluster, for example eu-central-1."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "expected the name of a region such as eu-central-1, received region=${var.region}"
  }
}

variable "prefix" {
  description = "First part of the bucket names, which are unique worldwide: PREFIX-dvc, PREFIX-mlflow, PREFIX-kubeflow."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{2,40}[a-z0-9]$", var.prefix))
    error_message = "expected 4 to 42 lower-case letters, digits and hyphens, received prefix=${var.prefix}"
  }
}

variable "cluster_issuer" {
  description = "OpenID Connect issuer of the EKS cluster: aws eks describe-cluster --name NAME --query cluster.identity.oidc.issuer"
  type        = string

  validation {
    condition     = can(regex("^https://[^/*? ]+(/[^/*? ]+)*$", var.cluster_issuer))
    error_message = "expected an address that begins with https://, without a slash at its end, received cluster_issuer=${var.cluster_issuer}"
  }
}

variable "pipeline_namespaces" {
  description = "Namespaces in which the service account cxr-pipeline runs steps: cxr, or kubeflow if Kubeflow Pipelines is installed alone."
  type        = set(string)
  default     = ["cxr"]

  validation {
    condition     = length(var.pipeline_namespaces) > 0 && alltrue([for name in var.pipeline_namespaces : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", name))])
    error_message = "expected names of namespaces, without wildcards, received pipeline_namespaces=${join(",", var.pipeline_namespaces)}"
  }
}

variable "old_version_days" {
  description = "Days in which a replaced or deleted object can be restored."
  type        = number
  default     = 90

  validation {
    condition     = var.old_version_days >= 1 && floor(var.old_version_days) == var.old_version_days
    error_message = "expected a whole number of days from 1 on, received old_version_days=${var.old_version_days}"
  }
}

variable "handover_days" {
  description = "Days after which the outputs that steps passed on (bucket kubeflow) are deleted. Models and their records are in bucket mlflow."
  type        = number
  default     = 60

  validation {
    condition     = var.handover_days >= 7 && floor(var.handover_days) == var.handover_days
    error_message = "expected a whole number of days from 7 on, received handover_days=${var.handover_days}"
  }
}

variable "tags" {
  description = "Additional tags of all resources, for example a cost centre."
  type        = map(string)
  default     = {}
}
