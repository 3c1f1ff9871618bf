//! Reading ONNX files that may be broken or hostile: limits first, then structure.

use std::collections::HashSet;
use std::path::Path;

use onnx_ir::{Message, ModelProto};

use super::tensor::expected_bytes;
use super::view::View;
use super::{GraphError, TensorProto};

/// Protobuf cannot describe more than this, so neither can an ONNX file in one piece.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: &str = "EXTERNAL";

/// Reads and checks an ONNX file with embedded weights.
///
/// # Errors
///
/// [`GraphError`] says what is wrong; the caller names the file.
pub fn read(path: &Path) -> Result<ModelProto, GraphError> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_FILE_BYTES {
        return Err(GraphError::TooLarge(length));
    }
    let model = read_bytes(&std::fs::read(path)?)?;
    for initializer in &model.graph.initializer {
        check_data(initializer)?;
    }
    Ok(model)
}

/// Reads and checks an ONNX model whose initializers may have no data, as the skeletons have none.
///
/// # Errors
///
/// [`GraphError`] says what is wrong.
pub fn read_bytes(bytes: &[u8]) -> Result<ModelProto, GraphError> {
    let model = ModelProto::parse_from_bytes(bytes)
        .map_err(|error| GraphError::NotOnnx(error.to_string()))?;
    if model.graph.node.is_empty() {
        return Err(GraphError::NotOnnx("it holds no graph".into()));
    }
    let opset = model
        .opset_import
        .iter()
        .find(|import| matches!(import.domain.as_str(), "" | "ai.onnx"))
        .map_or(0, |import| import.version);
    if !(9..=22).contains(&opset) {
        return Err(GraphError::Opset(opset));
    }
    check_names(&model)?;
    View::new(&model.graph)?.order()?;
    Ok(model)
}

/// Each value is defined once.
fn check_names(model: &ModelProto) -> Result<(), GraphError> {
    let mut seen = HashSet::new();
    let produced = model.graph.node.iter().flat_map(|node| &node.output);
    let stored = model.graph.initializer.iter().map(|tensor| &tensor.name);
    for name in produced.chain(stored).filter(|name| !name.is_empty()) {
        if !seen.insert(name) {
            return Err(GraphError::Invalid(format!("`{name}` is defined twice")));
        }
    }
    Ok(())
}

fn check_data(tensor: &TensorProto) -> Result<(), GraphError> {
    if format!("{:?}", tensor.data_location).contains(EXTERNAL) || !tensor.external_data.is_empty()
    {
        return Err(GraphError::ExternalData(tensor.name.clone()));
    }
    // Typed fields (`float_data`, …) are checked where they are read.
    if let (false, Some(expected)) = (tensor.raw_data.is_empty(), expected_bytes(tensor)?)
        && tensor.raw_data.len() != expected
    {
        return Err(GraphError::Tensor {
            name: tensor.name.clone(),
            reason: format!(
                "shape {:?} needs {expected} bytes, the file holds {}",
                tensor.dims,
                tensor.raw_data.len()
            ),
        });
    }
    Ok(())
}
