//! Model files, checked before an engine loads them.
//!
//! Metadata and signature are read from the protobuf, so that both engines get the same checks.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rgby_graph::{GraphProto, Message, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use sha2::{Digest, Sha256};

use super::{EngineError, StagedFile};
use crate::model_metadata::{EMBEDDINGS_NAME, METADATA_KEY, ModelSpec};
use rgby_common::atomic_file::sha256_file;

/// Name of the model's input, `[N, C, H, W]` float32.
pub const INPUT_NAME: &str = "image";
/// Name of the model's output, `[N, classes]` float32, 0–1.
pub const OUTPUT_NAME: &str = "probabilities";

const CHANGED: &str = "was changed while it was opened; start again";
/// Maximum size of a protobuf file.
const MAX_BYTES: u64 = 2 << 30;
/// `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;
/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

/// A checked model file. Its bytes are not kept, but read again when a session is loaded: an engine
/// has its own copy of the weights.
#[derive(Debug, Clone)]
pub struct ModelFile {
    file: StagedFile,
    sha256: String,
    spec: Arc<ModelSpec>,
}

impl ModelFile {
    /// Reads a model file and checks that rgby can run it: it contains a valid [`ModelSpec`], its
    /// only input is `image` `[N, C, size, size]` float32 with dynamic N, its output
    /// `probabilities` is `[N, classes]` float32, it has an output `embeddings` if the spec says
    /// so, and all weights are in the file itself.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`], naming the file and the first thing that does not fit.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        Self::open_staged(&StagedFile::local(path), None)
    }

    /// As [`open`](Self::open), for a file of another program that contains no [`ModelSpec`];
    /// `spec` describes it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), or the file contains a spec.
    pub fn open_as(path: &Path, spec: ModelSpec) -> Result<Self, EngineError> {
        Self::open_staged(&StagedFile::local(path), Some(spec))
    }

    /// As [`open`](Self::open), or with a `spec` [`open_as`](Self::open_as), for a file that may be
    /// the local copy of a remote one. Errors show its [`name`](StagedFile::name).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`open_as`](Self::open_as).
    pub fn open_staged(file: &StagedFile, spec: Option<ModelSpec>) -> Result<Self, EngineError> {
        let model_error = |reason| EngineError::Model {
            path: file.name().to_owned(),
            reason,
        };
        let bytes = read(file.path()).map_err(model_error)?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let spec = inspect(bytes, spec).map_err(model_error)?;
        Ok(Self {
            file: file.clone(),
            sha256,
            spec: Arc::new(spec),
        })
    }

    /// Returns the description of the model.
    #[must_use]
    pub fn spec(&self) -> &Arc<ModelSpec> {
        &self.spec
    }

    /// Returns the local path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Returns the path or URL to show.
    #[must_use]
    pub fn name(&self) -> &Path {
        self.file.name()
    }

    /// Returns the SHA-256 of the file, in hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Reads the bytes again.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`] if the file cannot be read or was changed.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, EngineError> {
        let model_error = |reason| EngineError::Model {
            path: self.name().to_owned(),
            reason,
        };
        let bytes = read(self.file.path()).map_err(model_error)?;
        if hex::encode(Sha256::digest(&bytes)) != self.sha256 {
            return Err(model_error(CHANGED.into()));
        }
        Ok(bytes)
    }

    /// Checks that the file is unchanged.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`] if it cannot be read or was changed.
    pub(super) fn check_unchanged(&self) -> Result<(), EngineError> {
        let reason = match sha256_file(self.file.path()) {
            Ok(hash) if hash == self.sha256 => return Ok(()),
            Ok(_) => CHANGED.into(),
            Err(error) => error.to_string(),
        };
        let path = self.name().to_owned();
        Err(EngineError::Model { path, reason })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
    // Opening a named pipe would block.
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a file; name the .onnx file that `rgby export` wrote".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("is larger than 2 GiB, which no self-contained ONNX file can be".into());
    }
    Ok(bytes)
}

/// Checks the bytes of a model; returns its spec, or `given` if it has none.
fn inspect(bytes: Vec<u8>, given: Option<ModelSpec>) -> Result<ModelSpec, String> {
    let not_onnx = "is not an ONNX model; name the .onnx file that `rgby export` wrote";
    // `raw_data` shares the buffer instead of copying it.
    let model = ModelProto::parse_from_tokio_bytes(&bytes.into());
    let model = model.map_err(|e| format!("{not_onnx} ({e})"))?;
    let graph = model
        .graph
        .as_ref()
        .filter(|g| !g.node.is_empty())
        .ok_or(not_onnx)?;
    let entries = &model.metadata_props;
    let text = entries.iter().find(|entry| entry.key == METADATA_KEY);
    let spec = match (text, given) {
        (Some(text), None) => own_spec(&text.value, graph)?,
        (None, Some(spec)) => {
            let unfit = |e| format!("{e}; fix --spec, or the model");
            spec.validate().map_err(unfit)?;
            check_signature(graph, &spec).map_err(unfit)?;
            spec
        }
        (Some(_), Some(_)) => {
            return Err(format!(
                "has `{METADATA_KEY}` metadata, which describes it; leave out --spec"
            ));
        }
        (None, None) => {
            return Err(format!(
                "has no `{METADATA_KEY}` metadata, so its classes and preprocessing are unknown; \
                 export it with `rgby export`, or describe it with `rgby score --spec`"
            ));
        }
    };
    if let Some(name) = external_tensor(&model) {
        return Err(format!(
            "its tensor `{name}` is stored in another file; rgby supports only self-contained \
             files, as `rgby export` writes them"
        ));
    }
    Ok(spec)
}

/// Parses the spec in the metadata of a model, and checks it against the graph.
fn own_spec(text: &str, graph: &GraphProto) -> Result<ModelSpec, String> {
    const HINT: &str = "export it again with `rgby export`";
    let invalid = |e: String| format!("its `{METADATA_KEY}` metadata is not valid: {e}; {HINT}");
    let spec: ModelSpec = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
    spec.validate().map_err(invalid)?;
    check_signature(graph, &spec).map_err(|e| format!("{e}; {HINT}"))?;
    Ok(spec)
}

/// Checks the declared input and output against the spec.
fn check_signature(graph: &GraphProto, spec: &ModelSpec) -> Result<(), String> {
    let is_weight = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs: Vec<_> = graph
        .input
        .iter()
        .filter(|input| !is_weight(&input.name))
        .collect();
    let [input] = inputs[..] else {
        return Err(format!(
            "has {} inputs; a model for scoring has one, `{INPUT_NAME}`",
            inputs.len()
        ));
    };
    let side = spec.preprocess.size as usize;
    let channels = spec.preprocess.channels.len();
    check_value("input", INPUT_NAME, input, &[channels, side, side])?;
    let find = |name: &str| {
        let output = graph.output.iter().find(|output| output.name == name);
        output.ok_or_else(|| {
            let names = graph.output.iter().map(|o| format!("`{}`", o.name));
            let names: Vec<_> = names.collect();
            format!("has no output `{name}`, only {}", names.join(", "))
        })
    };
    if spec.embeddings.is_some() {
        // The width may be dynamic; it is checked when embeddings are read.
        find(EMBEDDINGS_NAME)?;
    }
    let probabilities = find(OUTPUT_NAME)?;
    check_value("output", OUTPUT_NAME, probabilities, &[spec.classes.len()])
}

/// Checks that `value` is called `name` and is float32 of shape `[N, wanted…]` with dynamic N.
fn check_value(
    kind: &str,
    name: &str,
    value: &ValueInfoProto,
    wanted: &[usize],
) -> Result<(), String> {
    if value.name != name {
        return Err(format!(
            "its {kind} is called `{}`, not `{name}`",
            value.name
        ));
    }
    let tensor = value.type_.tensor_type();
    let shape: Vec<Option<usize>> = tensor
        .shape
        .dim
        .iter()
        .map(|dim| {
            usize::try_from(dim.dim_value())
                .ok()
                .filter(|size| *size > 0)
        })
        .collect();
    let batch_is_open = shape.first() == Some(&None);
    let rest_fits = shape
        .iter()
        .skip(1)
        .copied()
        .eq(wanted.iter().copied().map(Some));
    if tensor.elem_type == FLOAT && batch_is_open && rest_fits {
        return Ok(());
    }
    let print = |size: &Option<usize>| size.map_or_else(|| "N".to_owned(), |s| s.to_string());
    let found: Vec<_> = shape.iter().map(print).collect();
    let wanted: Vec<_> = wanted.iter().map(usize::to_string).collect();
    let float = if tensor.elem_type == FLOAT {
        "float32"
    } else {
        "another type than float32"
    };
    Err(format!(
        "its {kind} `{name}` is [{}] of {float}, but its `{METADATA_KEY}` metadata requires \
         [N, {}] of float32",
        found.join(", "),
        wanted.join(", ")
    ))
}

/// Returns the first tensor whose data is stored in another file, in any part of the model.
fn external_tensor(model: &ModelProto) -> Option<&str> {
    let functions = model.functions.iter().flat_map(|function| &function.node);
    model
        .graph
        .as_ref()
        .and_then(external_in_graph)
        .or_else(|| external_in_nodes(functions))
}

fn external_in_graph(graph: &GraphProto) -> Option<&str> {
    let sparse = &graph.sparse_initializer;
    let tensors = graph.initializer.iter();
    let mut tensors = tensors.chain(
        sparse
            .iter()
            .flat_map(|s| s.values.iter().chain(s.indices.iter())),
    );
    tensors
        .find_map(external)
        .or_else(|| external_in_nodes(&graph.node))
}

fn external_in_nodes<'a>(nodes: impl IntoIterator<Item = &'a NodeProto>) -> Option<&'a str> {
    nodes
        .into_iter()
        .flat_map(|node| &node.attribute)
        .find_map(|attribute| {
            let sparse = attribute
                .sparse_tensor
                .iter()
                .chain(&attribute.sparse_tensors);
            let sparse = sparse.flat_map(|s| s.values.iter().chain(s.indices.iter()));
            let mut tensors = attribute.t.iter().chain(&attribute.tensors).chain(sparse);
            let mut graphs = attribute.g.iter().chain(&attribute.graphs);
            tensors
                .find_map(external)
                .or_else(|| graphs.find_map(external_in_graph))
        })
}

fn external(tensor: &TensorProto) -> Option<&str> {
    let outside = tensor.data_location.value() == EXTERNAL || !tensor.external_data.is_empty();
    outside.then_some(tensor.name.as_str())
}

#[cfg(test)]
pub(super) mod tests;
