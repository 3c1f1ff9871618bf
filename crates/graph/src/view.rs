//! A read-only look at a graph: who makes a value, and in which order.

use std::collections::{HashMap, HashSet};

use super::{GraphError, GraphProto, TensorProto};

/// An index over a graph. `Identity` nodes are looked through.
pub struct View<'a> {
    /// The graph itself.
    pub graph: &'a GraphProto,
    inputs: HashSet<&'a str>,
    producers: HashMap<&'a str, usize>,
    tensors: HashMap<&'a str, &'a TensorProto>,
    /// What each output of an `Identity` stands for.
    sources: HashMap<&'a str, &'a str>,
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
                node.output.first().filter(|name| !name.is_empty()),
                node.attribute.first(),
            ) && let Some(value) = attribute.t.as_ref()
            {
                tensors.insert(output, value);
            }
        }
        Ok(Self {
            graph,
            inputs: graph
                .input
                .iter()
                .map(|input| input.name.as_str())
                .collect(),
            producers,
            tensors,
            sources: identity_sources(graph)?,
        })
    }

    /// The name behind any `Identity` nodes.
    #[must_use]
    pub fn resolve(&self, name: &'a str) -> &'a str {
        self.sources.get(name).copied().unwrap_or(name)
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

    /// Something makes this value: a node, a stored tensor or an input of the graph.
    ///
    /// # Errors
    ///
    /// Nothing does.
    pub(super) fn defined(&self, name: &str) -> Result<(), GraphError> {
        if self.producers.contains_key(name)
            || self.tensors.contains_key(name)
            || self.inputs.contains(name)
        {
            return Ok(());
        }
        Err(GraphError::Invalid(format!("nothing defines `{name}`")))
    }

    /// Node indices, each after everything that it reads.
    ///
    /// # Errors
    ///
    /// A cycle, or a value that nothing defines.
    pub fn order(&self) -> Result<Vec<usize>, GraphError> {
        #[derive(Clone, Copy, PartialEq)]
        enum ViewState {
            New,
            Open,
            Done,
        }
        let mut states = vec![ViewState::New; self.graph.node.len()];
        let mut order = Vec::with_capacity(states.len());
        // Depth first without recursion: a graph may be deeper than the stack. Each entry is a node
        // and how many of its inputs were looked at, so that none is looked at twice.
        let mut stack = Vec::new();
        for root in 0..states.len() {
            if states[root] == ViewState::New {
                states[root] = ViewState::Open;
                stack.push((root, 0));
            }
            while let Some((index, next)) = stack.last_mut() {
                let Some(name) = self.graph.node[*index].input.get(*next) else {
                    states[*index] = ViewState::Done;
                    order.push(*index);
                    stack.pop();
                    continue;
                };
                *next += 1;
                if name.is_empty() {
                    continue;
                }
                self.defined(name)?;
                let Some(&source) = self.producers.get(name.as_str()) else {
                    continue;
                };
                match states[source] {
                    ViewState::Done => {}
                    ViewState::Open => return Err(cycle(name)),
                    ViewState::New => {
                        states[source] = ViewState::Open;
                        stack.push((source, 0));
                    }
                }
            }
        }
        Ok(order)
    }
}

/// For each output of an `Identity`, the name at the far end of the chain; each link is followed
/// once, however the chains share them.
fn identity_sources(graph: &GraphProto) -> Result<HashMap<&str, &str>, GraphError> {
    let next: HashMap<&str, &str> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "Identity")
        .filter_map(|node| Some((node.output.first()?.as_str(), node.input.first()?.as_str())))
        .filter(|(output, _)| !output.is_empty())
        .collect();
    let mut sources = HashMap::with_capacity(next.len());
    for &start in next.keys() {
        let mut chain = Vec::new();
        let mut name = start;
        while let Some(&link) = next.get(name) {
            if let Some(&end) = sources.get(name) {
                name = end;
                break;
            }
            chain.push(name);
            if chain.len() > next.len() {
                return Err(cycle(name));
            }
            name = link;
        }
        sources.extend(chain.into_iter().map(|link| (link, name)));
    }
    Ok(sources)
}

fn cycle(name: &str) -> GraphError {
    GraphError::Invalid(format!("`{name}` depends on itself"))
}

/// The nodes that read each value; an output of the graph is read by a node that does not exist.
pub(super) fn readers(graph: &GraphProto) -> HashMap<&str, Vec<usize>> {
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            readers.entry(name).or_default().push(at);
        }
    }
    for output in &graph.output {
        readers.entry(&output.name).or_default().push(usize::MAX);
    }
    readers
}
