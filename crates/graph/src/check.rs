//! Reads untrusted ONNX files: checks the limits first, then the structure, then the data.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::tensor::{check_data, is_external};
use super::view::GraphView;
use super::{
    GraphError, GraphProto, Message, ModelProto, NodeProto, TensorProto, budget, external,
};

/// Protobuf messages cannot be larger, so neither can an ONNX file without external data.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// InceptionResNetV2 has about 1,000 nodes and initializers; an unrolled LSTM about 10,000 nodes.
const MAX_ENTRIES: u64 = 100_000;
/// Inputs or outputs of one node. A dense block concatenates about 50.
const MAX_PORTS: u64 = 1024;

/// Reads and checks an ONNX file and its external data.
///
/// Every initializer of the result holds exactly as much data as its shape needs.
///
/// # Errors
///
/// [`GraphError`]; the caller adds the file's name.
pub fn read(path: &Path) -> Result<ModelProto, GraphError> {
    complete(read_unchecked(path)?, path)
}

/// Reads an ONNX file of any operator set within the limits, without external data.
///
/// The result is for display only; [`complete`] makes it usable.
///
/// # Errors
///
/// The file cannot be read, is not an ONNX model, or exceeds the limits.
pub fn read_unchecked(path: &Path) -> Result<ModelProto, GraphError> {
    decode(read_file(path)?)
}

/// Checks a model that [`read_unchecked`] read from `path`, and reads its external data.
///
/// # Errors
///
/// As [`read`].
pub fn complete(mut model: ModelProto, path: &Path) -> Result<ModelProto, GraphError> {
    check_model(&model)?;
    check_graph(&model.graph)?;
    // The parent of a bare file name is the empty path, which cannot be opened.
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    external::load(&mut model, folder.unwrap_or(Path::new(".")))?;
    check_weights(&model.graph)?;
    Ok(model)
}

/// Reads and checks an ONNX model; its initializers may have no data, like those of the skeletons.
///
/// # Errors
///
/// As [`read`], without the checks of data.
pub fn read_bytes(bytes: &[u8]) -> Result<ModelProto, GraphError> {
    let model = decode(bytes.to_vec())?;
    check_model(&model)?;
    check_graph(&model.graph)?;
    Ok(model)
}

/// Checks that every initializer and constant holds exactly as much data as its shape needs.
///
/// # Errors
///
/// [`GraphError::Tensor`], or [`GraphError::ExternalData`] where the data is in another file.
pub fn check_weights(graph: &GraphProto) -> Result<(), GraphError> {
    graph.initializer.iter().try_for_each(check_data)?;
    constants(graph).try_for_each(check_data)
}

fn read_file(path: &Path) -> Result<Vec<u8>, GraphError> {
    // Checked before opening, because opening a pipe waits for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("not a regular file").into());
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MAX_FILE_BYTES {
        return Err(GraphError::TooLarge(length));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // The file may grow while it is read.
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn decode(bytes: Vec<u8>) -> Result<ModelProto, GraphError> {
    budget::check(&bytes)?;
    // `raw_data` shares this buffer instead of copying it.
    let model = ModelProto::parse_from_tokio_bytes(&bytes.into())
        .map_err(|error| GraphError::NotOnnx(error.to_string()))?;
    if model.graph.node.is_empty() {
        return Err(GraphError::NotOnnx("it contains no graph".into()));
    }
    Ok(model)
}

fn check_model(model: &ModelProto) -> Result<(), GraphError> {
    if let Some(function) = model.functions.first() {
        return Err(GraphError::Unsupported {
            what: format!("the function `{}`", function.name),
            hint: "inline it (onnx.inliner.inline_local_functions)",
        });
    }
    let mut opsets = model
        .opset_import
        .iter()
        .filter(|import| is_standard(&import.domain));
    match (opsets.next(), opsets.next()) {
        (Some(opset), None) if (9..=22).contains(&opset.version) => Ok(()),
        (Some(opset), None) => Err(GraphError::Opset(opset.version)),
        (Some(_), Some(_)) => Err(GraphError::Invalid(
            "it imports the standard operator set twice\nhint: re-export the model".into(),
        )),
        (None, _) => Err(GraphError::Invalid(
            "it does not import the standard operator set\nhint: re-export the model with an \
             opset from 9 to 22"
                .into(),
        )),
    }
}

fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn check_graph(graph: &GraphProto) -> Result<(), GraphError> {
    within("nodes", graph.node.len(), MAX_ENTRIES)?;
    within("initializers", graph.initializer.len(), MAX_ENTRIES)?;
    within("inputs", graph.input.len(), MAX_ENTRIES)?;
    within("outputs", graph.output.len(), MAX_PORTS)?;
    if let Some(sparse) = graph.sparse_initializer.first() {
        let name = &sparse.values.name;
        return Err(unsupported(format!("the sparse initializer `{name}`")));
    }
    graph.node.iter().try_for_each(check_node)?;
    check_names(graph)?;
    let view = GraphView::new(graph)?;
    view.order()?;
    if graph.output.is_empty() {
        return Err(GraphError::Invalid(
            "it has no output\nhint: re-export the model".into(),
        ));
    }
    graph
        .output
        .iter()
        .try_for_each(|output| view.defined(&output.name))
}

fn check_node(node: &NodeProto) -> Result<(), GraphError> {
    within("inputs of one node", node.input.len(), MAX_PORTS)?;
    within("outputs of one node", node.output.len(), MAX_PORTS)?;
    let title = || format!("{} (node `{}`)", node.op_type, node.name);
    if !is_standard(&node.domain) {
        return Err(unsupported(format!(
            "the operator {} of `{}`",
            title(),
            node.domain
        )));
    }
    let nested = node
        .attribute
        .iter()
        .any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty());
    if nested || matches!(node.op_type.as_str(), "If" | "Loop" | "Scan") {
        return Err(GraphError::Unsupported {
            what: format!("control flow: {}", title()),
            hint: "re-export the network in eval mode, without branches",
        });
    }
    let mut names = HashSet::new();
    for attribute in &node.attribute {
        if attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
            return Err(unsupported(format!("a sparse tensor in {}", title())));
        }
        if !names.insert(&attribute.name) {
            let name = &attribute.name;
            return Err(GraphError::Invalid(format!(
                "{} has the attribute `{name}` twice\nhint: re-export the model",
                title()
            )));
        }
        // The external data of `Constant` nodes is loaded later.
        let is_constant = node.op_type == "Constant";
        let single = attribute.t.as_ref().filter(|_| !is_constant);
        let mut tensors = single.into_iter().chain(&attribute.tensors);
        if let Some(tensor) = tensors.find(|tensor| is_external(tensor)) {
            return Err(GraphError::ExternalData(tensor.name.clone()));
        }
    }
    Ok(())
}

fn constants(graph: &GraphProto) -> impl Iterator<Item = &TensorProto> {
    graph
        .node
        .iter()
        .filter(|node| node.op_type == "Constant")
        .flat_map(|node| &node.attribute)
        .filter_map(|attribute| attribute.t.as_ref())
}

/// Checks that each value is defined once.
///
/// A graph input may have the name of an initializer, which is then its default value.
fn check_names(graph: &GraphProto) -> Result<(), GraphError> {
    let twice = |name: &str| GraphError::Invalid(format!("`{name}` is defined twice"));
    let mut inputs = HashSet::new();
    for input in &graph.input {
        if !inputs.insert(input.name.as_str()) {
            return Err(twice(&input.name));
        }
    }
    let mut seen = HashSet::new();
    for tensor in &graph.initializer {
        if tensor.name.is_empty() {
            // The empty name stands for every optional input that is left out.
            let reason = "an initializer has no name\nhint: re-export the model";
            return Err(GraphError::Invalid(reason.into()));
        }
        if !seen.insert(tensor.name.as_str()) {
            return Err(twice(&tensor.name));
        }
    }
    let produced = graph.node.iter().flat_map(|node| &node.output);
    for name in produced.filter(|name| !name.is_empty()) {
        if !seen.insert(name) || inputs.contains(name.as_str()) {
            return Err(twice(name));
        }
    }
    Ok(())
}

fn within(what: &'static str, found: usize, limit: u64) -> Result<(), GraphError> {
    let found = found as u64;
    if found > limit {
        return Err(GraphError::Limit { what, found, limit });
    }
    Ok(())
}

fn unsupported(what: String) -> GraphError {
    GraphError::Unsupported {
        what,
        hint: "re-export the network with standard, dense operators only",
    }
}
