//! Description of an operator that does not depend on the exporter.

use super::NodeProto;
use super::attributes::{int, ints, string};

/// Returns the operator and its attributes that differ from the defaults of the specification.
///
/// The momentum of BatchNorm is left out, because it does not affect inference.
pub(super) fn describe_operator(node: &NodeProto) -> String {
    let mut text = node.op_type.clone();
    let mut list = |name: &str, default: &[i64]| {
        let values = ints(node, name, default);
        if values != default {
            text += &format!(" {name} {values:?}");
        }
    };
    if matches!(node.op_type.as_str(), "Conv" | "MaxPool" | "AveragePool") {
        if node.op_type != "Conv" {
            list("kernel_shape", &[]);
        }
        list("strides", &[1, 1]);
        list("pads", &[0; 4]);
        list("dilations", &[1, 1]);
    }
    let mut number = |name: &str, default: i64| {
        let value = int(node, name, default);
        if value != default {
            text += &format!(" {name} {value}");
        }
    };
    match node.op_type.as_str() {
        "Conv" => number("group", 1),
        "MaxPool" => number("ceil_mode", 0),
        "AveragePool" => {
            number("ceil_mode", 0);
            number("count_include_pad", 0);
        }
        "Concat" => number("axis", 1),
        _ => {}
    }
    let auto_pad = string(node, "auto_pad", "NOTSET");
    if !matches!(auto_pad.as_str(), "NOTSET" | "") {
        text += &format!(" auto_pad {auto_pad}");
    }
    text
}
