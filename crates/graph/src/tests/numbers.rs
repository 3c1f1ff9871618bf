//! Numbers in tensors: invalid shapes, and supported and unsupported element types.

use super::hostile::{assert_contains, graph, rejection, weight};
use crate::TensorProto;
use crate::tensor::{ints, set_values, values};

#[test]
fn refuses_shapes_beyond_the_data() {
    for dims in [
        vec![1 << 62],
        vec![1 << 31, 1 << 31, 1 << 31],
        vec![i64::MAX, i64::MAX],
        vec![-6],
        vec![-2, -3],
    ] {
        let message = rejection(|m| graph(m).initializer[0].dims.clone_from(&dims));
        assert_contains(&message, &["`w`", "is impossible"]);
        let message = rejection(|m| {
            let tensor = graph(m).node[1].attribute[0].t.as_mut().unwrap();
            tensor.dims.clone_from(&dims);
        });
        assert_contains(&message, &["is impossible"]);
    }
    // Possible shapes without their data.
    let message = rejection(|m| graph(m).initializer[0].dims = vec![1 << 40]);
    assert_contains(
        &message,
        &["`w`", "needs 4398046511104 bytes, the file holds 24"],
    );
    let message = rejection(|m| {
        graph(m).initializer[0].dims = vec![1 << 40];
        graph(m).initializer[0].raw_data.clear();
    });
    assert_contains(&message, &["needs 1099511627776 values, the file holds 0"]);
    // No elements, but many filters.
    let message = rejection(|m| {
        graph(m).initializer[0].dims = vec![1 << 40, 0, 1, 1];
        graph(m).initializer[0].raw_data.clear();
    });
    assert_contains(&message, &["`w`", "has no elements"]);
}

#[test]
fn refuses_data_that_does_not_fit_its_shape() {
    for dims in [[2, 3, 1, 2], [2, 2, 1, 1]] {
        let message = rejection(|m| graph(m).initializer[0].dims = dims.to_vec());
        assert_contains(&message, &["`w`", "the file holds 24"]);
    }
    let message = rejection(|m| {
        let tensor = graph(m).node[1].attribute[0].t.as_mut().unwrap();
        tensor.raw_data.clear();
        tensor.float_data = vec![1.0];
    });
    assert_contains(&message, &["needs 2 values, the file holds 1"]);
    let message = rejection(|m| graph(m).initializer[0].float_data = vec![1.0; 6]);
    assert_contains(&message, &["`w`", "stored twice"]);
    let message = rejection(|m| graph(m).initializer[0].segment = Some(<_>::default()).into());
    assert_contains(&message, &["`w`", "segments"]);
}

#[test]
fn refuses_values_that_are_not_finite_floats() {
    let mut tensor = weight("w", &[3]);
    for (bad, shown) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
    ] {
        set_values(&mut tensor, &[1.0, 2.0, bad]);
        let message = values(&tensor).unwrap_err().to_string();
        assert_contains(&message, &["`w`", &format!("value 2 is {shown}")]);
    }
    // Finite in float64 only.
    set_values(&mut tensor, &[]);
    (tensor.data_type, tensor.double_data) = (11, vec![1.0, 1e300, 2.0]);
    assert_contains(
        &values(&tensor).unwrap_err().to_string(),
        &["value 1 is inf"],
    );
    for (number, name) in [
        (3, "int8"),
        (7, "int64"),
        (8, "string"),
        (14, "complex64"),
        (22, "int4"),
    ] {
        tensor.data_type = number;
        let message = values(&tensor).unwrap_err().to_string();
        assert_contains(
            &message,
            &["`w`", &format!("element type {name} "), "re-export"],
        );
    }
    for unknown in [-1, 99, i32::MAX] {
        tensor.data_type = unknown;
        assert_contains(
            &values(&tensor).unwrap_err().to_string(),
            &["unknown to ONNX"],
        );
    }
    tensor.data_type = 1;
    assert_contains(
        &ints(&tensor).unwrap_err().to_string(),
        &["`w`", "float32", "not an integer"],
    );
}

#[test]
fn reads_numbers_of_every_type_and_field() {
    fn raw<const N: usize>(words: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
        words.into_iter().flatten().collect()
    }
    let numbers = [0.5_f32, -1.0, 1.5];
    let half = [0x3800_u16, 0xbc00, 0x3e00];
    let brain = [0x3f00_u16, 0xbf80, 0x3fc0];
    let doubles = numbers.map(f64::from);
    let check = |data_type, fill: &dyn Fn(&mut TensorProto)| {
        let mut tensor = TensorProto::new();
        (tensor.data_type, tensor.dims) = (data_type, vec![3]);
        fill(&mut tensor);
        assert_eq!(values(&tensor).unwrap(), numbers, "type {data_type}");
        tensor.dims = vec![4];
        assert_contains(
            &values(&tensor).unwrap_err().to_string(),
            &["the file holds"],
        );
    };
    let stored = |data_type, bytes: Vec<u8>| {
        check(data_type, &|t| t.raw_data = bytes.clone().into());
    };
    stored(1, raw(numbers.map(f32::to_le_bytes)));
    check(1, &|t| t.float_data = numbers.to_vec());
    stored(10, raw(half.map(u16::to_le_bytes)));
    check(10, &|t| t.int32_data = half.map(i32::from).to_vec());
    stored(16, raw(brain.map(u16::to_le_bytes)));
    check(16, &|t| t.int32_data = brain.map(i32::from).to_vec());
    stored(11, raw(doubles.map(f64::to_le_bytes)));
    check(11, &|t| t.double_data = doubles.to_vec());
    let mut tensor = TensorProto::new();
    tensor.dims = vec![2];
    (tensor.data_type, tensor.int64_data) = (7, vec![-1, 1 << 40]);
    assert_eq!(ints(&tensor).unwrap(), [-1, 1 << 40]);
    tensor.raw_data = raw([-1_i64, 5].map(i64::to_le_bytes)).into();
    tensor.int64_data.clear();
    assert_eq!(ints(&tensor).unwrap(), [-1, 5]);
    tensor.data_type = 6;
    assert!(ints(&tensor).is_err(), "16 bytes are not two int32");
    tensor.dims = vec![4];
    assert_eq!(ints(&tensor).unwrap(), [-1, -1, 5, 0]);
    (tensor.int32_data, tensor.raw_data) = (vec![7, -7, 0, 1], raw::<1>([]).into());
    assert_eq!(ints(&tensor).unwrap(), [7, -7, 0, 1]);
}
