variable "buckets" {
  description = "ARN of each bucket by its use: dvc, mlflow, kubeflow."
  type        = map(string)
}

variable "key" {
  description = "ARN of the key that encrypts the buckets."
  type        = string
}

variable "issuer" {
  description = "OpenID Connect issuer of the cluster."
  type        = string
}

variable "provider_arn" {
  description = "ARN of the issuer as an identity provider of the account."
  type        = string
}

variable "pipeline_namespaces" {
  description = "Namespaces of the service account cxr-pipeline."
  type        = set(string)
}
