//! What the build makes of `inference.proto`.

#![allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated")]

tonic::include_proto!("inference");
