//! External data is read beside the model and refused everywhere else.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use protobuf::EnumOrUnknown;
use tempfile::TempDir;

use super::hostile::{assert_contains, bytes, graph, model};
use crate::tensor::values;
use crate::{GraphError, ModelProto, TensorProto, read, read_bytes};

/// Six weights, then two of a constant.
const DATA: [f32; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];

/// A folder `model/` with a file `data` in it, and one beside it.
struct ModelFolder(TempDir);

impl ModelFolder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let data: Vec<u8> = DATA.iter().flat_map(|value| value.to_le_bytes()).collect();
        fs::create_dir_all(folder.path("model/sub")).unwrap();
        for name in ["model/data", "model/sub/data", "outside"] {
            fs::write(folder.path(name), &data).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, model: &ModelProto) -> Result<ModelProto, GraphError> {
        fs::write(self.path("model/model.onnx"), bytes(model)).unwrap();
        read(&self.path("model/model.onnx"))
    }

    /// Asserts that a model whose tensor `w` has these entries is refused for these reasons.
    #[track_caller]
    fn rejection(&self, entries: &[(&str, &str)], parts: &[&str]) {
        let mut model = model();
        set_external(&mut graph(&mut model).initializer[0], entries);
        let message = self
            .read(&model)
            .expect_err("it must be refused")
            .to_string();
        assert_contains(&message, &["weights of `w`"]);
        assert_contains(&message, parts);
    }
}

fn set_external(tensor: &mut TensorProto, entries: &[(&str, &str)]) {
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
fn reads_data_beside_the_model() {
    let folder = ModelFolder::new();
    for location in ["data", "./data", "sub/data", "./sub/./data"] {
        let mut model = model();
        let graph = graph(&mut model);
        set_external(
            &mut graph.initializer[0],
            &[("location", location), ("checksum", "0")],
        );
        let constant = graph.node[1].attribute[0].t.as_mut().unwrap();
        let range = [("location", location), ("offset", "24"), ("length", "8")];
        set_external(constant, &range);
        let read = folder.read(&model).unwrap();
        let weight = &read.graph.initializer[0];
        assert_eq!(values(weight).unwrap(), DATA[..6]);
        assert!(weight.external_data.is_empty() && weight.data_location.value() == 0);
        let constant = read.graph.node[1].attribute[0].t.as_ref().unwrap();
        assert_eq!(values(constant).unwrap(), DATA[6..]);
    }
    // Without a folder no external data is read.
    let mut model = model();
    set_external(
        &mut graph(&mut model).initializer[0],
        &[("location", "data")],
    );
    let read = read_bytes(&bytes(&model)).unwrap();
    let message = values(&read.graph.initializer[0]).unwrap_err().to_string();
    assert_contains(&message, &["`w`", "separate file"]);
}

#[test]
fn follows_links_to_the_model_itself() {
    let folder = ModelFolder::new();
    let mut model = model();
    set_external(
        &mut graph(&mut model).initializer[0],
        &[("location", "data")],
    );
    folder.read(&model).unwrap();
    symlink(folder.path("model/model.onnx"), folder.path("link.onnx")).unwrap();
    fs::rename(folder.path("outside"), folder.path("data")).unwrap();
    read(&folder.path("link.onnx")).unwrap();
    symlink(folder.path("model"), folder.path("folder")).unwrap();
    read(&folder.path("folder/model.onnx")).unwrap();
}

#[test]
fn refuses_files_outside_the_models_folder() {
    let folder = ModelFolder::new();
    let absolute = folder.path("model/data");
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
        folder.rejection(&[("location", location)], &parts);
    }
    folder.rejection(&[], &["below the model's own folder"]);
    // Control characters of a name do not reach the terminal.
    let mut model = model();
    let entries = [("location", "../\x1b[2J\n")];
    set_external(&mut graph(&mut model).initializer[0], &entries);
    let message = folder.read(&model).unwrap_err().to_string();
    let (reason, _) = message.split_once("\nhint: ").unwrap();
    assert!(!reason.contains(['\x1b', '\n']), "{message:?}");
}

#[test]
fn refuses_links() {
    let folder = ModelFolder::new();
    let link = |to: &str, name: &str| symlink(to, folder.path(name)).unwrap();
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
        folder.rejection(
            &[("location", name)],
            &["symbolic link", "cp -L", &format!("`{name}`")],
        );
    }
    fs::hard_link(folder.path("outside"), folder.path("model/hard")).unwrap();
    folder.rejection(&[("location", "hard")], &["hard link", "2 names", "a copy"]);
}

#[test]
fn refuses_other_than_regular_files() {
    let folder = ModelFolder::new();
    let pipe = folder.path("model/pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(folder.path("model/socket")).unwrap();
    let started = Instant::now();
    for name in ["pipe", "sub", "data/below", "socket"] {
        folder.rejection(
            &[("location", name)],
            &["not a regular file", &format!("`{name}`")],
        );
    }
    // Opening the pipe did not wait for a writer.
    assert!(started.elapsed() < Duration::from_secs(5));
    for name in ["gone", "gone/data"] {
        folder.rejection(&[("location", name)], &["missing", "put the exporter's"]);
    }
}

#[test]
fn refuses_invalid_ranges() {
    let folder = ModelFolder::new();
    let with = |key, value| [("location", "data"), (key, value)];
    folder.rejection(&with("offset", "16"), &["has 32 bytes", "ends at 40"]);
    folder.rejection(
        &with("offset", "18446744073709551600"),
        &["beyond any file"],
    );
    folder.rejection(&with("length", "23"), &["is 23 bytes", "need 24"]);
    folder.rejection(&with("length", "4611686018427387904"), &["need 24"]);
    for text in ["-1", "+1", "1e3", "0x10", " 1", "", "99999999999999999999"] {
        let shown = format!("offset `{text}` is not a number");
        folder.rejection(&with("offset", text), &[&shown]);
        folder.rejection(&with("length", text), &["is not a number"]);
    }
    folder.rejection(&with("location", "data"), &["`location` occurs twice"]);
    folder.rejection(&with("basepath", "/"), &["`basepath` is none of"]);
    let rejection = |edit: &dyn Fn(&mut TensorProto)| {
        let mut model = model();
        let tensor = &mut graph(&mut model).initializer[0];
        set_external(tensor, &[("location", "data")]);
        edit(tensor);
        folder.read(&model).unwrap_err().to_string()
    };
    assert_contains(
        &rejection(&|t| t.raw_data = vec![0; 24].into()),
        &["contains data for it as well"],
    );
    assert_contains(&rejection(&|t| t.data_type = 8), &["element type string"]);
    assert_contains(
        &rejection(&|t| t.dims = vec![1 << 62]),
        &["`w`", "is impossible"],
    );
    assert_contains(
        &rejection(&|t| t.dims = vec![1 << 28]),
        &["has 32 bytes, the data ends at 1073741824"],
    );
}

#[test]
fn reads_ranges_of_large_files_and_bounds_the_total() {
    let folder = ModelFolder::new();
    let large = File::create(folder.path("model/large")).unwrap();
    large.set_len(3 << 30).unwrap();
    let mut model = model();
    let range = [("location", "large"), ("offset", "3221225448")];
    set_external(&mut graph(&mut model).initializer[0], &range);
    let started = Instant::now();
    let read = folder.read(&model).unwrap();
    assert_eq!(values(&read.graph.initializer[0]).unwrap(), [0.0; 6]);
    // Three tensors share the same GiB of the file.
    let graph = graph(&mut model);
    let mut shared = graph.initializer[0].clone();
    shared.dims = vec![1 << 28];
    for name in ["x", "y", "z"] {
        shared.name = name.into();
        set_external(&mut shared, &[("location", "large")]);
        graph.initializer.push(shared.clone());
    }
    let message = folder.read(&model).unwrap_err().to_string();
    assert_contains(
        &message,
        &["3221225496 bytes of external data", "at most 2147483648"],
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "the limit is checked before reading"
    );
}

#[test]
fn refuses_external_data_in_other_attributes() {
    let folder = ModelFolder::new();
    let mut model = model();
    let node = &mut graph(&mut model).node[1];
    set_external(
        node.attribute[0].t.as_mut().unwrap(),
        &[("location", "data")],
    );
    node.op_type = "ConstantOfShape".into();
    let message = folder.read(&model).unwrap_err().to_string();
    assert_contains(&message, &["separate file"]);
}
