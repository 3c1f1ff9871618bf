//! External data: read where it lies beside the model, refused everywhere else.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use protobuf::EnumOrUnknown;
use tempfile::TempDir;

use super::hostile::{bytes, graph, model, says};
use crate::tensor::values;
use crate::{GraphError, ModelProto, TensorProto, read, read_bytes};

/// Six weights, then two of a constant.
const DATA: [f32; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];

/// A folder `model/` with a file `data` in it, and one beside it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let data: Vec<u8> = DATA.iter().flat_map(|value| value.to_le_bytes()).collect();
        fs::create_dir_all(place.path("model/sub")).unwrap();
        for name in ["model/data", "model/sub/data", "outside"] {
            fs::write(place.path(name), &data).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, model: &ModelProto) -> Result<ModelProto, GraphError> {
        fs::write(self.path("model/model.onnx"), bytes(model)).unwrap();
        read(&self.path("model/model.onnx"))
    }

    /// Why a model whose tensor `w` has these entries is refused.
    #[track_caller]
    fn refused(&self, entries: &[(&str, &str)], parts: &[&str]) {
        let mut model = model();
        move_out(&mut graph(&mut model).initializer[0], entries);
        let message = self
            .read(&model)
            .expect_err("it must be refused")
            .to_string();
        says(&message, &["weights of `w`"]);
        says(&message, parts);
    }
}

fn move_out(tensor: &mut TensorProto, entries: &[(&str, &str)]) {
    tensor.raw_data.clear();
    tensor.data_location = EnumOrUnknown::from_i32(1);
    tensor.external_data.clear();
    for (key, value) in entries {
        tensor.external_data.push(<_>::default());
        let entry = tensor.external_data.last_mut().unwrap();
        (entry.key, entry.value) = ((*key).into(), (*value).into());
    }
}

#[test]
fn data_beside_the_model_is_read_into_it() {
    let place = Place::new();
    for location in ["data", "./data", "sub/data", "./sub/./data"] {
        let mut model = model();
        let graph = graph(&mut model);
        move_out(
            &mut graph.initializer[0],
            &[("location", location), ("checksum", "0")],
        );
        let constant = graph.node[1].attribute[0].t.as_mut().unwrap();
        let range = [("location", location), ("offset", "24"), ("length", "8")];
        move_out(constant, &range);
        let read = place.read(&model).unwrap();
        let weight = &read.graph.initializer[0];
        assert_eq!(values(weight).unwrap(), DATA[..6]);
        assert!(weight.external_data.is_empty() && weight.data_location.value() == 0);
        let constant = read.graph.node[1].attribute[0].t.as_ref().unwrap();
        assert_eq!(values(constant).unwrap(), DATA[6..]);
    }
    // Without a folder there is nothing to read from.
    let mut model = model();
    move_out(
        &mut graph(&mut model).initializer[0],
        &[("location", "data")],
    );
    let read = read_bytes(&bytes(&model)).unwrap();
    let message = values(&read.graph.initializer[0]).unwrap_err().to_string();
    says(&message, &["`w`", "separate file"]);
}

#[test]
fn a_link_to_the_model_itself_is_the_users_own() {
    let place = Place::new();
    let mut model = model();
    move_out(
        &mut graph(&mut model).initializer[0],
        &[("location", "data")],
    );
    place.read(&model).unwrap();
    symlink(place.path("model/model.onnx"), place.path("link.onnx")).unwrap();
    fs::rename(place.path("outside"), place.path("data")).unwrap();
    read(&place.path("link.onnx")).unwrap();
    symlink(place.path("model"), place.path("folder")).unwrap();
    read(&place.path("folder/model.onnx")).unwrap();
}

#[test]
fn files_outside_the_models_folder_are_refused() {
    let place = Place::new();
    let absolute = place.path("model/data");
    for location in [
        "../outside",
        "sub/../../outside",
        "sub/../data",
        absolute.to_str().unwrap(),
        "/etc/passwd",
        "..",
        "..\\outside",
        "sub\\data",
        "C:\\data",
        "da\0ta",
        "",
        ".",
        "/",
    ] {
        let parts = ["below the model's own folder", "move the data beside"];
        place.refused(&[("location", location)], &parts);
    }
    place.refused(&[], &["below the model's own folder"]);
    // A name cannot write to the terminal.
    let mut model = model();
    let entries = [("location", "../\x1b[2J\n")];
    move_out(&mut graph(&mut model).initializer[0], &entries);
    let message = place.read(&model).unwrap_err().to_string();
    assert!(!message.contains(['\x1b', '\n']), "{message:?}");
}

#[test]
fn links_are_refused() {
    let place = Place::new();
    let link = |to: &str, name: &str| symlink(to, place.path(name)).unwrap();
    link("../outside", "model/out");
    link("data", "model/within");
    link("nowhere", "model/dangling");
    link("loop", "model/loop");
    link("sub", "model/folder");
    link("..", "model/up");
    for name in [
        "out",
        "within",
        "dangling",
        "loop",
        "folder/data",
        "up/outside",
        "folder",
    ] {
        place.refused(
            &[("location", name)],
            &["symbolic link", "cp -L", &format!("`{name}`")],
        );
    }
    fs::hard_link(place.path("outside"), place.path("model/hard")).unwrap();
    place.refused(&[("location", "hard")], &["hard link", "2 names", "a copy"]);
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    let place = Place::new();
    let pipe = place.path("model/pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(place.path("model/socket")).unwrap();
    let started = Instant::now();
    for name in ["pipe", "sub", "data/below", "socket"] {
        place.refused(
            &[("location", name)],
            &["not a regular file", &format!("`{name}`")],
        );
    }
    // Nobody writes to the pipe, and nobody waited for it.
    assert!(started.elapsed() < Duration::from_secs(5));
    for name in ["gone", "gone/data"] {
        place.refused(&[("location", name)], &["missing", "put the exporter's"]);
    }
}

#[test]
fn ranges_that_lie_are_refused() {
    let place = Place::new();
    let with = |key, value| [("location", "data"), (key, value)];
    place.refused(&with("offset", "16"), &["holds 32 bytes", "ends at 40"]);
    place.refused(
        &with("offset", "18446744073709551600"),
        &["beyond any file"],
    );
    place.refused(&with("length", "23"), &["names 23 bytes", "need 24"]);
    place.refused(&with("length", "4611686018427387904"), &["need 24"]);
    for text in ["-1", "+1", "1e3", "0x10", " 1", "", "99999999999999999999"] {
        let shown = format!("offset `{text}` is not a number");
        place.refused(&with("offset", text), &[&shown]);
        place.refused(&with("length", text), &["is not a number"]);
    }
    place.refused(&with("location", "data"), &["`location` is there twice"]);
    place.refused(&with("basepath", "/"), &["`basepath` is none of"]);
    let refused = |edit: &dyn Fn(&mut TensorProto)| {
        let mut model = model();
        let tensor = &mut graph(&mut model).initializer[0];
        move_out(tensor, &[("location", "data")]);
        edit(tensor);
        place.read(&model).unwrap_err().to_string()
    };
    says(
        &refused(&|t| t.raw_data = vec![0; 24].into()),
        &["holds data for it too"],
    );
    says(&refused(&|t| t.data_type = 8), &["element type string"]);
    says(
        &refused(&|t| t.dims = vec![1 << 62]),
        &["`w`", "is impossible"],
    );
    says(
        &refused(&|t| t.dims = vec![1 << 28]),
        &["holds 32 bytes, the data ends at 1073741824"],
    );
}

#[test]
fn a_large_file_is_read_by_range_and_all_data_is_bounded() {
    let place = Place::new();
    let large = File::create(place.path("model/large")).unwrap();
    large.set_len(3 << 30).unwrap();
    let mut model = model();
    let range = [("location", "large"), ("offset", "3221225448")];
    move_out(&mut graph(&mut model).initializer[0], &range);
    let started = Instant::now();
    let read = place.read(&model).unwrap();
    assert_eq!(values(&read.graph.initializer[0]).unwrap(), [0.0; 6]);
    // Three times the same gigabyte, which is there.
    let graph = graph(&mut model);
    let mut shared = graph.initializer[0].clone();
    shared.dims = vec![1 << 28];
    for name in ["x", "y", "z"] {
        shared.name = name.into();
        move_out(&mut shared, &[("location", "large")]);
        graph.initializer.push(shared.clone());
    }
    let message = place.read(&model).unwrap_err().to_string();
    says(
        &message,
        &["3221225496 bytes of external data", "at most 2147483648"],
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "nothing of it may be read"
    );
}

#[test]
fn other_attributes_cannot_name_files() {
    let place = Place::new();
    let mut model = model();
    let node = &mut graph(&mut model).node[1];
    move_out(
        node.attribute[0].t.as_mut().unwrap(),
        &[("location", "data")],
    );
    node.op_type = "ConstantOfShape".into();
    let message = place.read(&model).unwrap_err().to_string();
    says(&message, &["separate file"]);
}
