# For docker's buildx: `docker buildx bake` builds all images; `docker buildx bake train --push` builds one and pushes it.
# `make images` builds the same images with docker or podman.

variable "REGISTRY" {
  default = ""
}

variable "VERSION" {
  default = "0.1.0"
}

variable "REVISION" {
  default = ""
}

function "name" {
  params = [target]
  result = "${REGISTRY == "" ? "" : "${REGISTRY}/"}cxr-${target}:${VERSION}"
}

group "default" {
  targets = ["data", "train", "train-gpu", "serve", "node", "mlflow"]
}

target "labelled" {
  context = "."
  args = {
    VERSION  = VERSION
    REVISION = REVISION
  }
}

target "component" {
  inherits   = ["labelled"]
  dockerfile = "components/Dockerfile"
}

target "data" {
  inherits = ["component"]
  target   = "data"
  tags     = [name("data")]
}

target "train" {
  inherits = ["component"]
  target   = "train"
  tags     = [name("train")]
}

# TensorFlow has wheels with CUDA only for this platform.
target "train-gpu" {
  inherits  = ["component"]
  target    = "train-gpu"
  platforms = ["linux/amd64"]
  tags      = [name("train-gpu")]
}

target "serve" {
  inherits = ["component"]
  target   = "serve"
  tags     = [name("serve")]
}

target "node" {
  inherits = ["component"]
  target   = "node"
  tags     = [name("node")]
}

target "mlflow" {
  inherits   = ["labelled"]
  dockerfile = "mlflow/Dockerfile"
  tags       = [name("mlflow")]
}
