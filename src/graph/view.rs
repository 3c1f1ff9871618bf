//! A read-only look at a graph: who makes a value, what an attribute means when it is left out.

use std::collections::HashMap;

use super::{GraphError, GraphProto, NodeProto, TensorProto};

/// An index over a graph. `Identity` nodes are looked through.
pub struct View<'a> {
    /// The graph itself.
    pub graph: &'a GraphProto,
    producers: HashMap<&'a str, usize>,
    tensors: HashMap<&'a str, &'a TensorProto>,
}

impl<'a> View<'a> {
    /// Indexes a graph.
    ///
    /// # Errors
    ///
    /// A cycle of `Identity` nodes.
    pub fn new(graph: &'a GraphProto) -> Result<Self, GraphError> {
        let mut producers = HashMap::new();
        let mut tensors: HashMap<&str, &TensorProto> = graph
            .initializer
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        for (index, node) in graph.node.iter().enumerate() {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                producers.insert(output.as_str(), index);
            }
            if let ("Constant", Some(output), Some(attribute)) = (
                node.op_type.as_str(),
                node.output.first(),
                node.attribute.first(),
            ) && let Some(value) = attribute.t.as_ref()
            {
                tensors.insert(output, value);
            }
        }
        let view = Self {
            graph,
            producers,
            tensors,
        };
        view.check_identities()?;
        Ok(view)
    }

    fn check_identities(&self) -> Result<(), GraphError> {
        for node in self
            .graph
            .node
            .iter()
            .filter(|node| node.op_type == "Identity")
        {
            let mut name = node.input.first().map_or("", String::as_str);
            let mut hops = 0;
            while let Some(next) = self.identity_source(name) {
                name = next;
                hops += 1;
                if hops > self.graph.node.len() {
                    return Err(GraphError::Invalid(format!("`{name}` depends on itself")));
                }
            }
        }
        Ok(())
    }

    fn identity_source(&self, name: &str) -> Option<&'a str> {
        let node = &self.graph.node[*self.producers.get(name)?];
        (node.op_type == "Identity")
            .then(|| node.input.first().map(String::as_str))
            .flatten()
    }

    /// The name behind any `Identity` nodes.
    #[must_use]
    pub fn resolve(&self, name: &'a str) -> &'a str {
        let mut name = name;
        while let Some(source) = self.identity_source(name) {
            name = source;
        }
        name
    }

    /// Index of the node that computes a value, if a node does.
    #[must_use]
    pub fn producer(&self, name: &'a str) -> Option<usize> {
        self.producers.get(self.resolve(name)).copied()
    }

    /// The stored tensor behind a name: an initializer or the value of a `Constant` node.
    #[must_use]
    pub fn tensor(&self, name: &'a str) -> Option<&'a TensorProto> {
        self.tensors.get(self.resolve(name)).copied()
    }

    /// Node indices, each after everything that it reads.
    ///
    /// # Errors
    ///
    /// A cycle, or a value that nothing defines.
    pub fn order(&self) -> Result<Vec<usize>, GraphError> {
        let inputs: Vec<&str> = self
            .graph
            .input
            .iter()
            .map(|input| input.name.as_str())
            .collect();
        let mut state = vec![0_u8; self.graph.node.len()];
        let mut order = Vec::with_capacity(state.len());
        for root in 0..state.len() {
            // Depth first without recursion: a graph may be deeper than the stack.
            let mut stack = vec![root];
            while let Some(&index) = stack.last() {
                let first_visit = state[index] == 0;
                state[index] = state[index].max(1);
                let mut waiting = false;
                for name in self.graph.node[index]
                    .input
                    .iter()
                    .filter(|name| !name.is_empty())
                {
                    match self.producers.get(name.as_str()) {
                        Some(&source) if state[source] == 0 => {
                            stack.push(source);
                            waiting = true;
                        }
                        Some(&source) if state[source] == 1 && first_visit => {
                            return Err(GraphError::Invalid(format!("`{name}` depends on itself")));
                        }
                        None if !self.tensors.contains_key(name.as_str())
                            && !inputs.contains(&name.as_str()) =>
                        {
                            return Err(GraphError::Invalid(format!("nothing defines `{name}`")));
                        }
                        _ => {}
                    }
                }
                if !waiting {
                    stack.pop();
                    if state[index] != 2 {
                        state[index] = 2;
                        order.push(index);
                    }
                }
            }
        }
        Ok(order)
    }
}

/// An integer attribute, or its default.
#[must_use]
pub fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i)
}

/// A float attribute, or its default.
#[must_use]
pub fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).map_or(default, |attribute| attribute.f)
}

/// A list of integers, or its default.
#[must_use]
pub fn ints(node: &NodeProto, name: &str, default: &[i64]) -> Vec<i64> {
    attribute(node, name).map_or_else(|| default.to_vec(), |attribute| attribute.ints.clone())
}

/// A string attribute, or its default.
#[must_use]
pub fn string(node: &NodeProto, name: &str, default: &str) -> String {
    attribute(node, name).map_or_else(
        || default.into(),
        |a| String::from_utf8_lossy(&a.s).into_owned(),
    )
}

fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n onnx_ir::AttributeProto> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name == name)
}
