# The container images of the project; `make images` builds them.
resource "aws_ecr_repository" "this" {
  for_each = toset(["cxr-data", "cxr-train", "cxr-train-gpu", "cxr-serve", "cxr-mlflow"])

  name = each.key
  # A version always means the same image, because model cards name it.
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each = aws_ecr_repository.this

  repository = each.value.name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Images without a version"
      selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 14 }
      action       = { type = "expire" }
    }]
  })
}
