//! Generates the backbones at build time: skeleton → patched graph → Burn code and weight table.
//!
//! Part of `build.rs`, not of the crate.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use burn_onnx::ModelGen;
use burn_onnx::ext::{
    Argument, CodegenContext, Field, Imports, Node, NodeType, OpOverride, PackTensor, ProcessError,
    arg_to_ident, create_deferred_tensor, proc_macro2, quote,
};
use burn_store::burn_pack::Reader;
use onnx_ir::TensorDataExt as _;
use onnx_ir::node::batch_norm::{BatchNormConfig, BatchNormalizationNode};
use onnx_ir::node::padding::AutoPad;
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

use rgby_graph::patches::{absorb_relu, drop_classifier};
use rgby_graph::{self as graph, GraphProto, Message, surgery};

/// Red, green, blue, yellow.
const CHANNELS: i64 = 4;

/// Generates `$OUT_DIR/backbones/<name>.rs` and `<name>.table.rs` for every skeleton in `onnx/`.
pub fn run() -> Result<()> {
    for file in ["src/model/codegen.rs", "onnx"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?).join("backbones");
    fs::create_dir_all(&out)?;
    for entry in fs::read_dir("onnx")? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "onnx")
        {
            generate(&path, &out).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn generate(skeleton: &Path, out: &Path) -> Result<()> {
    let name = skeleton.file_stem().unwrap_or_default().to_string_lossy();
    let mut model = graph::read_bytes(&fs::read(skeleton)?)?;
    let graph = model.graph.mut_or_insert_default();
    drop_classifier(graph)?;
    surgery::widen_stem(graph, CHANNELS)?;
    surgery::burn_momentum(graph);
    surgery::fill_placeholders(graph)?;
    let scales = absorb_relu(graph);
    let with_relu = (0..)
        .zip(&graph.initializer)
        .filter(|(_, tensor)| scales.contains(&tensor.name))
        .map(|(index, _)| index)
        .collect();
    let patched = out.join(format!("{name}.onnx"));
    fs::write(&patched, model.write_to_bytes()?)?;

    ModelGen::new()
        .input(&patched.to_string_lossy())
        .out_dir("backbones/")
        .register_op_override(FusedConv)
        .register_op_override(FusedRelu)
        .register_op_override(UnbiasedBatchNorm { with_relu })
        .register_op_override(InlineScalar)
        .register_op_override(ScaleByScalar)
        .run_from_script();

    let pack = out.join(format!("{name}.bpk"));
    let table = imported(skeleton, &model.graph, &pack)?;
    fs::write(out.join(format!("{name}.table.rs")), table)?;
    // Only the code is needed: the placeholder weights are as large as the real ones.
    fs::remove_file(pack)?;
    fs::remove_file(patched)?;
    Ok(())
}

/// Returns the expression for `model::Imported`.
fn imported(skeleton: &Path, graph: &GraphProto, pack: &Path) -> Result<String> {
    let initializers: Vec<&str> = graph
        .initializer
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    let weights = weight_table(pack, &initializers)?;
    let stem_weight = surgery::stem_weight(graph)?;
    let stem = weights
        .iter()
        .find(|(_, initializer)| *initializer == stem_weight);
    let (stem, _) = stem.context("the generated code has no parameter for the stem")?;
    let features = graph::network::Network::new(graph)?.features()?;
    let file = fs::canonicalize(skeleton)?;
    let file = file.display().to_string();
    let mut text = format!(
        "super::Imported {{\n    skeleton: include_bytes!({file:?}),\n    features: {features},\n    \
         stem: {stem:?},\n    windows: &["
    );
    for window in graph::feature_map_size::windows(graph)? {
        write!(text, "crate::graph::feature_map_size::{window:?}, ")?;
    }
    text.push_str("],\n    weights: &[\n");
    for (path, initializer) in &weights {
        writeln!(text, "        ({path:?}, {initializer:?}),")?;
    }
    text.push_str("    ],\n}");
    Ok(text)
}

/// Returns path and initializer of each generated parameter, identified by its placeholder value.
fn weight_table<'a>(pack: &Path, initializers: &[&'a str]) -> Result<Vec<(String, &'a str)>> {
    let mut seen = vec![false; initializers.len()];
    let mut table = Vec::new();
    for tensor in Reader::from_file(pack)?.into_tensors()? {
        let data = tensor.to_bytes()?;
        let index = f32::from_le_bytes(data[..4].try_into()?) as usize;
        let initializer = initializers
            .get(index)
            .with_context(|| format!("{} has no placeholder value", tensor.name))?;
        ensure!(
            !std::mem::replace(&mut seen[index], true),
            "`{initializer}` is used by two parameters"
        );
        table.push((tensor.name.clone(), *initializer));
    }
    if let Some(unused) = seen.iter().position(|&seen| !seen) {
        anyhow::bail!("no parameter uses `{}`", initializers[unused]);
    }
    Ok(table)
}

/// Generates `fused::conv2d` for convolutions; Burn's layer holds the weights.
struct FusedConv;

impl OpOverride for FusedConv {
    fn target(&self) -> NodeType {
        NodeType::Conv2d
    }

    fn field(&self, node: &Node) -> Result<Option<Field>, ProcessError> {
        let Node::Conv2d(node) = node else {
            return Ok(None);
        };
        let config = &node.config;
        let filters = node.inputs[1].ty.static_shape_known();
        let filters = filters.filter(|_| config.auto_pad == AutoPad::NotSet);
        let filters = filters.ok_or_else(|| {
            ProcessError::Custom(format!(
                "{}: filter shape or padding is not static",
                node.name
            ))
        })?;
        let (outputs, inputs, groups) = (filters[0], filters[1] * config.groups, config.groups);
        let (kernel, stride, dilation) = (config.kernel_size, config.stride, config.dilation);
        let (top, left, bottom, right) = config.padding.as_tuple();
        let bias = node.inputs.get(2).is_some_and(|bias| !bias.is_optional());
        let name = Ident::new(&node.name, Span::call_site());
        Ok(Some(Field::new(
            node.name.clone(),
            quote! { Conv2d },
            quote! {
                let #name = Conv2dConfig::new([#inputs, #outputs], [#(#kernel),*])
                    .with_stride([#(#stride),*])
                    .with_padding(PaddingConfig2d::Explicit(#top, #left, #bottom, #right))
                    .with_dilation([#(#dilation),*])
                    .with_groups(#groups)
                    .with_bias(#bias)
                    .init(device);
            },
        )))
    }

    fn forward(
        &self,
        node: &Node,
        context: &mut CodegenContext<'_, '_>,
    ) -> Result<TokenStream, ProcessError> {
        let Node::Conv2d(node) = node else {
            return Ok(TokenStream::new());
        };
        let input = context.arg(&node.inputs[0]);
        let output = arg_to_ident(&node.outputs[0]);
        let field = Ident::new(&node.name, Span::call_site());
        Ok(quote! { let #output = crate::model::fused::conv2d(&self.#field, #input); })
    }

    fn register_imports(&self, imports: &mut Imports<'_>) {
        imports.register("burn::nn::PaddingConfig2d");
        imports.register("burn::nn::conv::Conv2d");
        imports.register("burn::nn::conv::Conv2dConfig");
    }

    fn collect_tensors(&self, node: &Node, field: &str) -> Result<Vec<PackTensor>, ProcessError> {
        let Node::Conv2d(node) = node else {
            return Ok(vec![]);
        };
        Ok(stored(&node.inputs[1..], &["weight", "bias"], field))
    }
}

/// Returns the stored tensors of `inputs`; `parts` are the parameter names.
fn stored(inputs: &[Argument], parts: &[&str], field: &str) -> Vec<PackTensor> {
    inputs
        .iter()
        .zip(parts)
        .filter_map(|(input, part)| create_deferred_tensor(input, &format!("{field}.{part}")))
        .collect()
}

/// Generates `fused::relu` for Relu, which works in place.
struct FusedRelu;

impl OpOverride for FusedRelu {
    fn target(&self) -> NodeType {
        NodeType::Relu
    }

    fn forward(
        &self,
        node: &Node,
        context: &mut CodegenContext<'_, '_>,
    ) -> Result<TokenStream, ProcessError> {
        let Node::Relu(node) = node else {
            return Ok(TokenStream::new());
        };
        let input = context.arg(&node.inputs[0]);
        let output = arg_to_ident(&node.outputs[0]);
        Ok(quote! { let #output = crate::model::fused::relu(#input); })
    }
}

/// Generates `model::BatchNorm2d` for BatchNormalization, with PyTorch's unbiased running variance.
struct UnbiasedBatchNorm {
    /// Placeholder values of the scales of layers that include a Relu.
    with_relu: HashSet<usize>,
}

impl OpOverride for UnbiasedBatchNorm {
    fn target(&self) -> NodeType {
        NodeType::BatchNormalization
    }

    fn field(&self, node: &Node) -> Result<Option<Field>, ProcessError> {
        let Node::BatchNormalization(node) = node else {
            return Ok(None);
        };
        let (epsilon, momentum) = static_config(node)?;
        let features = node.inputs[1]
            .ty
            .static_shape_known()
            .map_or(0, |shape| shape[0]);
        let name = Ident::new(&node.name, Span::call_site());
        Ok(Some(Field::new(
            node.name.clone(),
            quote! { BatchNorm2d },
            quote! { let #name = BatchNorm2d::new(#features, #epsilon, #momentum, device); },
        )))
    }

    fn forward(
        &self,
        node: &Node,
        context: &mut CodegenContext<'_, '_>,
    ) -> Result<TokenStream, ProcessError> {
        let Node::BatchNormalization(node) = node else {
            return Ok(TokenStream::new());
        };
        let input = context.arg(&node.inputs[0]);
        let output = arg_to_ident(&node.outputs[0]);
        let field = Ident::new(&node.name, Span::call_site());
        let scale = node.inputs[1].value().ok_or_else(|| {
            ProcessError::Custom(format!("{}: the scale is not stored", node.name))
        })?;
        let placeholder = scale.iter::<f32>().next().map_or(0, |value| value as usize);
        let forward = if self.with_relu.contains(&placeholder) {
            quote! { forward_relu }
        } else {
            quote! { forward }
        };
        Ok(quote! { let #output = self.#field.#forward(#input); })
    }

    fn register_imports(&self, imports: &mut Imports<'_>) {
        imports.register("crate::model::BatchNorm2d");
    }

    fn collect_tensors(&self, node: &Node, field: &str) -> Result<Vec<PackTensor>, ProcessError> {
        let Node::BatchNormalization(node) = node else {
            return Ok(vec![]);
        };
        let parts = ["gamma", "beta", "running_mean", "running_var"];
        Ok(stored(&node.inputs[1..], &parts, field))
    }
}

/// Returns epsilon and momentum.
fn static_config(node: &BatchNormalizationNode) -> Result<(f64, f64), ProcessError> {
    match &node.config {
        BatchNormConfig::Static(config) => Ok((config.epsilon, config.momentum)),
        BatchNormConfig::Runtime(_) => Err(ProcessError::Custom(format!(
            "{}: the statistics are not stored",
            node.name
        ))),
    }
}

/// Generates nothing for constants: scalars are inlined where they are used, not parameters.
struct InlineScalar;

impl OpOverride for InlineScalar {
    fn target(&self) -> NodeType {
        NodeType::Constant
    }

    fn forward(
        &self,
        _: &Node,
        _: &mut CodegenContext<'_, '_>,
    ) -> Result<TokenStream, ProcessError> {
        Ok(TokenStream::new())
    }
}

/// Generates multiplication by an [`InlineScalar`], as the residual scales of InceptionResNetV2.
struct ScaleByScalar;

impl OpOverride for ScaleByScalar {
    fn target(&self) -> NodeType {
        NodeType::Mul
    }

    fn forward(
        &self,
        node: &Node,
        context: &mut CodegenContext<'_, '_>,
    ) -> Result<TokenStream, ProcessError> {
        let Node::Mul(node) = node else {
            return Ok(TokenStream::new());
        };
        let factor = node.inputs[1]
            .value()
            .and_then(|data| data.scalar_f32().ok())
            .ok_or_else(|| ProcessError::Custom(format!("{}: not a scalar factor", node.name)))?;
        let input = context.arg(&node.inputs[0]);
        let output = arg_to_ident(&node.outputs[0]);
        Ok(quote! { let #output = #input.mul_scalar(#factor); })
    }
}
