//! Generates Burn code from the ONNX skeletons in `onnx/`.
//!
//! Each skeleton is patched: the classifier is removed, the stem is widened to four channels, the
//! BatchNorm momentum is converted, and the weights become placeholders. `burn_onnx::ModelGen` then
//! generates the code. A table maps each generated parameter to its initializer.

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
