//! Turns the ONNX skeletons in `onnx/` into Burn code.
//!
//! Each skeleton is patched (classifier dropped, stem widened to four channels, BatchNorm momentum
//! in Burn's meaning, placeholder weights) and run through `burn_onnx::ModelGen`. Beside the code
//! stands a table that maps each generated parameter to its initializer.

#[cfg(feature = "train")]
#[path = "src/model/codegen.rs"]
mod codegen;

#[cfg_attr(
    not(feature = "train"),
    allow(clippy::unnecessary_wraps, reason = "only code generation can fail")
)]
fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "train")]
    codegen::run()?;
    Ok(())
}
