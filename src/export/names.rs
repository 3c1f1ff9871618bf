//! Names of the values in an exported graph.

use std::collections::HashMap;

use crate::graph::ModelProto;
use crate::model::ModelConfig;
use crate::model_metadata::EMBEDDINGS_NAME;
use crate::score::{INPUT_NAME, OUTPUT_NAME};

/// Gives inputs, outputs and backbone weights their public names.
pub(super) fn rename_values(model: &mut ModelProto, config: &ModelConfig) {
    let graph = model.graph.mut_or_insert_default();
    let imported = config.arch.imported();
    let mut names: HashMap<String, String> = imported
        .into_iter()
        .flat_map(|network| network.weights)
        .map(|&(path, initializer)| (path.to_owned(), format!("backbone.{initializer}")))
        .collect();
    names.extend(
        graph
            .input
            .first()
            .map(|input| (input.name.clone(), INPUT_NAME.to_owned())),
    );
    let outputs = graph.output.iter().zip([OUTPUT_NAME, EMBEDDINGS_NAME]);
    names.extend(outputs.map(|(output, name)| (output.name.clone(), name.to_owned())));
    // Burn's path is `backbone.<variant>.<path>`; public names omit the variant.
    let variant = format!("{:?}.", config.arch);
    let rename = |name: &mut String| {
        let path = name.strip_prefix("backbone.");
        let path = path.map(|path| path.strip_prefix(&variant).unwrap_or(path));
        if let Some(known) = names.get(path.unwrap_or(name)) {
            known.clone_into(name);
        } else if let Some(path) = path {
            *name = format!("backbone.{path}");
        }
    };
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        rename(&mut value.name);
    }
    for tensor in &mut graph.initializer {
        rename(&mut tensor.name);
    }
    for node in &mut graph.node {
        node.input
            .iter_mut()
            .chain(&mut node.output)
            .for_each(rename);
    }
}
