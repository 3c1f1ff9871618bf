//! Code generated from `inference.proto` by the build script.

#![allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated")]

tonic::include_proto!("inference");
