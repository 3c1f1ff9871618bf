//! What any ONNX file says about itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::verdict::Verdict;
use crate::atomic_file;
use crate::graph::tensor::{is_external, name_of_type, numel};
use crate::graph::{self, GraphProto, ModelProto, TensorProto, ValueInfoProto};
use crate::model::Exported;
use crate::model_metadata::ModelSpec;
use crate::score::ModelFile;

/// A file that was read.
pub(super) struct File {
    /// What rgby wrote into it, if it did.
    pub spec: Option<ModelSpec>,
    pub summary: Summary,
    pub verdict: Verdict,
    pub sha256: String,
}

/// What a graph is made of.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub producer: String,
    pub ir_version: i64,
    /// Operator sets by domain; the standard one is `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// Without those that only give an initializer's name.
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
    pub nodes: usize,
    /// Operators, the most frequent first.
    pub operators: Vec<Operator>,
    /// Functions that the file defines itself.
    pub functions: usize,
    /// Values in all initializers of a possible shape.
    pub parameters: u64,
    /// Initializers of each element type.
    pub weights: BTreeMap<&'static str, usize>,
    /// Tensors in each other file that the model names. None of them was opened for this list.
    pub external: BTreeMap<String, usize>,
    pub metadata: Vec<String>,
}

/// An input or output.
#[derive(Debug, Serialize)]
pub(super) struct Value {
    pub name: String,
    /// Element type, or what it is instead of a tensor.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Sizes, names of sizes that are open, or `?`; none where nothing is said.
    pub shape: Option<Vec<String>>,
}

/// How often an operator is there.
#[derive(Debug, Serialize)]
pub(super) struct Operator {
    /// With its domain if that is not the standard one.
    pub operator: String,
    pub count: usize,
}

impl File {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = || path.display().to_string();
        let model = graph::read_unchecked(path).with_context(file)?;
        let ours = Exported::is(&model);
        Ok(Self {
            // All of its checks, since `score` would make them too.
            spec: if ours {
                Some(ModelFile::open(path)?.spec().as_ref().clone())
            } else {
                None
            },
            summary: Summary::of(&model),
            verdict: Verdict::of(model, path),
            sha256: atomic_file::sha256_file(path).with_context(file)?,
        })
    }
}

impl Summary {
    fn of(model: &ModelProto) -> Self {
        let graph: &GraphProto = &model.graph;
        let stored: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let inputs = graph.input.iter();
        let inputs = inputs.filter(|input| !stored.contains(input.name.as_str()));
        let mut weights = BTreeMap::new();
        for tensor in &graph.initializer {
            *weights.entry(name_of_type(tensor.data_type)).or_default() += 1;
        }
        let sizes = graph.initializer.iter().filter_map(|t| numel(t).ok());
        Self {
            producer: producer(model),
            ir_version: model.ir_version,
            opsets: opsets(model),
            inputs: inputs.map(value).collect(),
            outputs: graph.output.iter().map(value).collect(),
            nodes: graph.node.len(),
            operators: operators(graph),
            functions: model.functions.len(),
            parameters: sizes.fold(0, |sum: u64, size| sum.saturating_add(size as u64)),
            weights,
            external: external(graph),
            metadata: model.metadata_props.iter().map(|e| e.key.clone()).collect(),
        }
    }
}

fn producer(model: &ModelProto) -> String {
    let parts = [
        model.producer_name.as_str(),
        model.producer_version.as_str(),
    ];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

fn opsets(model: &ModelProto) -> BTreeMap<String, i64> {
    let imports = model.opset_import.iter();
    imports
        .map(|import| (domain(&import.domain).to_owned(), import.version))
        .collect()
}

fn domain(domain: &str) -> &str {
    if domain.is_empty() { "ai.onnx" } else { domain }
}

fn operators(graph: &GraphProto) -> Vec<Operator> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for node in &graph.node {
        let operator = match domain(&node.domain) {
            "ai.onnx" => node.op_type.clone(),
            other => format!("{other}.{}", node.op_type),
        };
        *counts.entry(operator).or_default() += 1;
    }
    let operator = |(operator, count)| Operator { operator, count };
    let mut operators: Vec<Operator> = counts.into_iter().map(operator).collect();
    operators.sort_by(|a, b| {
        b.count
            .cmp(&a.count)
            .then_with(|| a.operator.cmp(&b.operator))
    });
    operators
}

/// The files that initializers and constants name, as the model writes them.
fn external(graph: &GraphProto) -> BTreeMap<String, usize> {
    let attributes = graph.node.iter().flat_map(|node| &node.attribute);
    let constants = attributes.filter_map(|attribute| attribute.t.as_ref());
    let tensors = graph.initializer.iter().chain(constants);
    let mut files = BTreeMap::new();
    for tensor in tensors.filter(|tensor| is_external(tensor)) {
        *files.entry(location(tensor)).or_default() += 1;
    }
    files
}

fn location(tensor: &TensorProto) -> String {
    let entry = tensor.external_data.iter().find(|e| e.key == "location");
    entry.map_or_else(String::new, |entry| entry.value.clone())
}

fn value(info: &ValueInfoProto) -> Value {
    let name = info.name.clone();
    let Some(kind) = info.type_.as_ref().filter(|kind| kind.has_tensor_type()) else {
        let kind = if info.type_.is_some() {
            "no tensor"
        } else {
            "of no type"
        };
        return Value {
            name,
            kind,
            shape: None,
        };
    };
    let tensor = kind.tensor_type();
    let shape = tensor.shape.as_ref().map(|shape| {
        let dims = shape.dim.iter().map(|dim| match dim.dim_param() {
            _ if dim.has_dim_value() => dim.dim_value().to_string(),
            "" => "?".to_owned(),
            name => name.to_owned(),
        });
        dims.collect()
    });
    Value {
        name,
        kind: name_of_type(tensor.elem_type),
        shape,
    }
}
