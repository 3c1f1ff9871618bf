//! Turns the ONNX skeletons in `onnx/` into Burn code.
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

#[cfg(feature = "train")]
fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    codegen::run()
}

#[cfg(not(feature = "train"))]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
