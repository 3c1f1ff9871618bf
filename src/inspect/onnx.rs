//! The contents of any ONNX file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::{ConversionPreview, InspectError};
use crate::atomic_file;
use crate::graph::tensor::{is_external, name_of_type, numel};
use crate::graph::{self, GraphProto, ModelProto, TensorProto, ValueInfoProto};
use crate::model::Exported;
use crate::model_metadata::ModelSpec;
use crate::score::ModelFile;

/// The description of an ONNX file.
#[derive(Debug)]
pub struct OnnxDescription {
    /// The metadata of rgby, if rgby exported the file.
    pub spec: Option<ModelSpec>,
    pub summary: GraphSummary,
    pub preview: ConversionPreview,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
}

/// The contents of an ONNX graph.
#[derive(Debug, Serialize)]
pub struct GraphSummary {
    pub producer: String,
    pub ir_version: i64,
    /// Operator sets by domain; the standard domain is `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// Without inputs that only name an initializer.
    pub inputs: Vec<GraphValue>,
    pub outputs: Vec<GraphValue>,
    pub nodes: usize,
    /// Operators, the most frequent first.
    pub operators: Vec<OperatorCount>,
    /// Number of functions that the file defines.
    pub functions: usize,
    /// Number of values in all initializers with a valid shape.
    pub parameters: u64,
    /// Number of initializers of each element type.
    pub weights: BTreeMap<&'static str, usize>,
    /// Number of tensors in each external file that the model names. The files are not opened.
    pub external: BTreeMap<String, usize>,
    /// Keys of the metadata.
    pub metadata: Vec<String>,
}

/// An input or output of a graph.
#[derive(Debug, Serialize)]
pub struct GraphValue {
    pub name: String,
    /// Element type, or the kind of a value that is not a tensor.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Sizes, names of dynamic sizes, or `?`; none if the file does not give the shape.
    pub shape: Option<Vec<String>>,
}

/// The number of nodes with an operator.
#[derive(Debug, Serialize)]
pub struct OperatorCount {
    /// Includes the domain if that is not the standard one.
    pub operator: String,
    pub count: usize,
}

impl OnnxDescription {
    pub(super) fn read(path: &Path) -> Result<Self, InspectError> {
        let model = graph::read_unchecked(path).map_err(|cause| InspectError::Graph {
            path: path.to_owned(),
            cause,
        })?;
        Ok(Self {
            // Opens the file with all checks that `rgby score` would make.
            spec: if Exported::is(&model) {
                Some(ModelFile::open(path)?.spec().as_ref().clone())
            } else {
                None
            },
            summary: GraphSummary::new(&model),
            preview: ConversionPreview::new(model, path),
            sha256: atomic_file::sha256_file(path).map_err(|cause| InspectError::Hash {
                path: path.to_owned(),
                cause,
            })?,
        })
    }
}

impl GraphSummary {
    fn new(model: &ModelProto) -> Self {
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

fn operators(graph: &GraphProto) -> Vec<OperatorCount> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for node in &graph.node {
        let operator = match domain(&node.domain) {
            "ai.onnx" => node.op_type.clone(),
            other => format!("{other}.{}", node.op_type),
        };
        *counts.entry(operator).or_default() += 1;
    }
    let operator = |(operator, count)| OperatorCount { operator, count };
    let mut operators: Vec<OperatorCount> = counts.into_iter().map(operator).collect();
    operators.sort_by(|a, b| {
        b.count
            .cmp(&a.count)
            .then_with(|| a.operator.cmp(&b.operator))
    });
    operators
}

/// Counts the tensors of each external file that initializers and constants name.
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

fn value(info: &ValueInfoProto) -> GraphValue {
    let name = info.name.clone();
    let Some(kind) = info.type_.as_ref().filter(|kind| kind.has_tensor_type()) else {
        let kind = if info.type_.is_some() {
            "not a tensor"
        } else {
            "untyped"
        };
        return GraphValue {
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
    GraphValue {
        name,
        kind: name_of_type(tensor.elem_type),
        shape,
    }
}
