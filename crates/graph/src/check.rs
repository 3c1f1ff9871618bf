//! Reading ONNX files that may be broken or hostile: limits first, then structure, then data.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use onnx_ir::{Message, ModelProto};

use super::tensor::{check_data, is_external};
use super::view::View;
use super::{GraphError, GraphProto, NodeProto, TensorProto, budget, external};

/// Protobuf cannot describe more than this, so neither can an ONNX file in one piece.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// InceptionResNetV2 has about a thousand of each; an LSTM unrolled, some ten thousand.
const MAX_ENTRIES: u64 = 100_000;
/// Inputs or outputs of one node. A dense block joins about fifty.
const MAX_PORTS: u64 = 1024;

/// Reads and checks an ONNX file, with the external data beside it, if it has such.
///
/// Every initializer of the result holds as much data as its shape asks for.
///
/// # Errors
///
/// [`GraphError`] says what is wrong; the caller names the file.
pub fn read(path: &Path) -> Result<ModelProto, GraphError> {
    complete(read_unchecked(path)?, path)
}

/// Reads an ONNX file within the same limits, but takes whatever ONNX knows, of any operator set,
/// and opens no other file: to say what it is, not to use it.
///
/// # Errors
///
/// [`GraphError`] if it cannot be read, is no ONNX model, or is larger than the limits.
pub fn read_unchecked(path: &Path) -> Result<ModelProto, GraphError> {
    decode(read_file(path)?)
}

/// Checks what [`read_unchecked`] read from `path`, and reads its external data.
///
/// # Errors
///
/// As [`read`].
pub fn complete(mut model: ModelProto, path: &Path) -> Result<ModelProto, GraphError> {
    check_model(&model)?;
    check_graph(&model.graph)?;
    // A bare name's parent is the empty path, which cannot be opened.
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    external::load(&mut model, folder.unwrap_or(Path::new(".")))?;
    check_weights(&model.graph)?;
    Ok(model)
}

/// Reads and checks an ONNX model whose initializers may have no data, as the skeletons have none.
///
/// # Errors
///
/// [`GraphError`] says what is wrong.
pub fn read_bytes(bytes: &[u8]) -> Result<ModelProto, GraphError> {
    let model = decode(bytes.to_vec())?;
    check_model(&model)?;
    check_graph(&model.graph)?;
    Ok(model)
}

/// Every initializer and constant holds as much data as its shape asks for.
///
/// # Errors
///
/// [`GraphError::Tensor`], or [`GraphError::ExternalData`] where the data lies in another file.
pub fn check_weights(graph: &GraphProto) -> Result<(), GraphError> {
    graph.initializer.iter().try_for_each(check_data)?;
    constants(graph).try_for_each(check_data)
}

fn read_file(path: &Path) -> Result<Vec<u8>, GraphError> {
    // Asked before opening, since opening a pipe waits for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file").into());
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MAX_FILE_BYTES {
        return Err(GraphError::TooLarge(length));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // A file that grows while it is read stays below the limit.
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn decode(bytes: Vec<u8>) -> Result<ModelProto, GraphError> {
    budget::check(&bytes)?;
    // From shared bytes, so that `raw_data` is a part of the buffer, not a copy.
    let model = ModelProto::parse_from_tokio_bytes(&bytes.into())
        .map_err(|error| GraphError::NotOnnx(error.to_string()))?;
    if model.graph.node.is_empty() {
        return Err(GraphError::NotOnnx("it holds no graph".into()));
    }
    Ok(model)
}

fn check_model(model: &ModelProto) -> Result<(), GraphError> {
    if let Some(function) = model.functions.first() {
        return Err(GraphError::Unsupported {
            what: format!("the function `{}`", function.name),
            mend: "inline it (onnx.inliner.inline_local_functions)",
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
            "it names the standard operator set twice; re-export it".into(),
        )),
        (None, _) => Err(GraphError::Invalid(
            "it does not name the standard operator set; re-export it with an opset from 9 to 22"
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
    let view = View::new(graph)?;
    view.order()?;
    if graph.output.is_empty() {
        return Err(GraphError::Invalid("it has no output; re-export it".into()));
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
            mend: "re-export the network in eval mode, without branches",
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
                "{} has the attribute `{name}` twice; re-export it",
                title()
            )));
        }
        let loaded = node.op_type == "Constant";
        let external = |tensor: &&TensorProto| is_external(tensor);
        let single = attribute.t.as_ref().filter(|_| !loaded);
        if let Some(tensor) = single.into_iter().chain(&attribute.tensors).find(external) {
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

/// Each value is defined once. A graph's input may name an initializer: that is its default.
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
            // It would stand for every optional input that is left out.
            let reason = "an initializer has no name; re-export it";
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
        mend: "re-export the network with standard, dense operators only",
    }
}
