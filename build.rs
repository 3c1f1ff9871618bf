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
    #[cfg(feature = "torch")]
    torch::build()?;
    Ok(())
}

/// Compiles what `tch` does not bind.
#[cfg(feature = "torch")]
mod torch {
    use std::path::{Path, PathBuf};

    use anyhow::{Context, ensure};

    const SHIM: &str = "src/model/fused/torch/shim.cpp";
    /// Versions of libtorch that are accepted.
    const TESTED: [(&str, &str); 2] = [("2", "9"), ("2", "11")];

    pub fn build() -> anyhow::Result<()> {
        println!("cargo::rerun-if-changed={SHIM}");
        let lib = std::env::var_os("DEP_TCH_LIBTORCH_LIB")
            .context("torch-sys does not report where libtorch is")?;
        let lib = PathBuf::from(lib);
        let root = lib
            .parent()
            .context("libtorch's library folder has no parent")?;
        check_version(root)?;
        let include = root.join("include");
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .opt_level(3)
            .flag_if_supported("-fno-math-errno")
            .warnings(false)
            .include(&include)
            .include(include.join("torch/csrc/api/include"))
            .file(SHIM)
            .try_compile("rgby_torch")
            .context("the C++ part of `--features torch` does not compile")?;
        // The one of torch-sys has no effect, because it is not passed to the packages that use it.
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
        Ok(())
    }

    fn check_version(root: &Path) -> anyhow::Result<()> {
        // The file moved between versions.
        let texts = ["torch/headeronly", "torch/csrc/api/include/torch"].map(|folder| {
            let path = root.join("include").join(folder).join("version.h");
            std::fs::read_to_string(path).unwrap_or_default()
        });
        let part = |name: &str| {
            let start = format!("#define TORCH_VERSION_{name} ");
            let mut lines = texts.iter().flat_map(|text| text.lines());
            lines.find_map(|line| line.strip_prefix(&start).map(str::trim))
        };
        let version = (part("MAJOR"), part("MINOR"));
        ensure!(
            TESTED
                .iter()
                .any(|&(major, minor)| version == (Some(major), Some(minor))),
            "libtorch in {} has version {}.{}; rgby needs 2.9 or 2.11\nhint: install \
             torch==2.11.0 in the active Python environment and see docs/devices.md",
            root.display(),
            version.0.unwrap_or("?"),
            version.1.unwrap_or("?")
        );
        Ok(())
    }
}
