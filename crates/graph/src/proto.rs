//! Protobuf messages of ONNX, generated from `proto/onnx.proto`.

#[allow(
    clippy::pedantic,
    rustdoc::all,
    reason = "generated code follows other rules"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/proto/mod.rs"));
}

pub use generated::onnx::*;
