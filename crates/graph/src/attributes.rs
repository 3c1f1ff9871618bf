//! Reads and sets the attributes of a node.

use super::{AttributeProto, AttributeType, NodeProto};

/// Returns an attribute as it is stored.
#[must_use]
pub fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name == name)
}

/// Returns an integer attribute, or `default` where it is missing.
#[must_use]
pub fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i)
}

/// Returns a float attribute, or `default` where it is missing.
#[must_use]
pub fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).map_or(default, |attribute| attribute.f)
}

/// Returns a list of integers, or `default` where it is missing.
#[must_use]
pub fn ints(node: &NodeProto, name: &str, default: &[i64]) -> Vec<i64> {
    attribute(node, name).map_or_else(|| default.to_vec(), |attribute| attribute.ints.clone())
}

/// Returns a string attribute, or `default` where it is missing.
#[must_use]
pub fn string(node: &NodeProto, name: &str, default: &str) -> String {
    attribute(node, name).map_or_else(
        || default.into(),
        |attribute| String::from_utf8_lossy(&attribute.s).into_owned(),
    )
}

/// Sets an integer attribute.
pub fn set_int(node: &mut NodeProto, name: &str, value: i64) {
    let attribute = replaced(node, name, AttributeType::INT);
    attribute.i = value;
}

/// Sets a float attribute.
pub fn set_float(node: &mut NodeProto, name: &str, value: f32) {
    let attribute = replaced(node, name, AttributeType::FLOAT);
    attribute.f = value;
}

/// Sets a list of integers.
pub fn set_ints(node: &mut NodeProto, name: &str, values: &[i64]) {
    let attribute = replaced(node, name, AttributeType::INTS);
    attribute.ints = values.to_vec();
}

/// Removes an attribute, so that its default applies.
pub fn unset(node: &mut NodeProto, name: &str) {
    node.attribute.retain(|attribute| attribute.name != name);
}

fn replaced<'n>(
    node: &'n mut NodeProto,
    name: &str,
    kind: AttributeType,
) -> &'n mut AttributeProto {
    unset(node, name);
    let last = node.attribute.len();
    node.attribute.push(AttributeProto {
        name: name.into(),
        type_: kind.into(),
        ..AttributeProto::default()
    });
    &mut node.attribute[last]
}
