//! Turns the ONNX skeletons in `onnx/` into Burn code, and the gRPC protocol into messages.
//!
//! Each skeleton is patched (classifier dropped, stem widened to four channels, BatchNorm momentum
//! in Burn's meaning, placeholder weights), run through `burn_onnx::ModelGen`, and the table that
//! says which generated parameter stands for which initializer is written beside the code.

#[cfg(feature = "train")]
#[path = "src/graph/mod.rs"]
// The build script needs a part of it.
#[allow(dead_code, unused_imports)]
mod graph;

#[cfg(feature = "train")]
#[path = "src/model/codegen.rs"]
mod codegen;

#[cfg_attr(
    not(any(feature = "train", feature = "serve")),
    allow(clippy::unnecessary_wraps, reason = "only the others can fail")
)]
fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "train")]
    codegen::run()?;
    #[cfg(feature = "serve")]
    grpc()?;
    Ok(())
}

/// Makes `$OUT_DIR/inference.rs`, the messages and the service of the gRPC server.
#[cfg(feature = "serve")]
fn grpc() -> anyhow::Result<()> {
    const FOLDER: &str = "src/serve/grpc";
    println!("cargo::rerun-if-changed={FOLDER}/inference.proto");
    let files = protox::compile(["inference.proto"], [FOLDER])?;
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".inference")
        .codec_path("crate::serve::grpc::codec::Bounded")
        .compile_fds(files)?;
    Ok(())
}
