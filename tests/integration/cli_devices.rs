//! `rgby devices`, and `--device` with unavailable devices.

use serde_json::Value;

use crate::support::{assert_refused, finish, rgby, run, workplace};

/// Returns the output of `rgby devices --json` with these environment variables.
fn devices(variables: &[(&str, &str)]) -> Value {
    let mut command = rgby();
    command.args(["devices", "--json"]);
    let listed = finish(command.envs(variables.iter().copied()));
    assert_eq!(listed.code, Some(0), "{listed:?}");
    serde_json::from_str(&listed.stdout).unwrap()
}

#[test]
fn lists_the_scoring_engine_and_its_devices() {
    let listed = devices(&[]);
    assert!(listed["scoring"]["engine"].is_string(), "{listed}");
    assert_eq!(listed["scoring"]["devices"][0], "cpu", "{listed}");
    let (engine, library) = (&listed["scoring"]["engine"], &listed["scoring"]["library"]);
    let embedded = engine.as_str().unwrap().starts_with("tract");
    assert_eq!(library.is_null(), embedded, "{listed}");
    let version = listed["scoring"]["version"].as_str().unwrap();
    assert!(
        embedded || version.starts_with("ONNX Runtime 1."),
        "{listed}"
    );
    assert!(listed["machine"]["cores"].as_u64() >= Some(1), "{listed}");
    let dir = tempfile::tempdir().unwrap();
    let text = run(dir.path(), "devices");
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""), "{text:?}");
    for part in [
        "machine",
        "training",
        "scoring",
        "  cores ",
        "  memory ",
        "  engine ",
    ] {
        assert!(text.stdout.contains(part), "no {part} in {text:?}");
    }
    assert_refused(
        dir.path(),
        &[("devices --ort-lib nothing.so", &["--ort-lib", "nothing.so"])],
    );
}

#[cfg(feature = "train")]
mod training {
    use std::fs;

    use super::*;

    /// Returns a training command whose device is rejected before any file is read.
    fn train(device: &str) -> String {
        format!("train --config c.toml --images images --labels l.csv --out run --device {device}")
    }

    const CONFIG: &str = "[model]\narch = \"baseline\"\ninput_size = 16\n\
                          [train]\nepochs = 1\nbatch_size = 4\n[optimizer]\nname = \"adadelta\"\n";

    #[test]
    fn lists_the_cpu_and_explains_missing_devices() {
        let listed = devices(&[]);
        let cpu = &listed["training"]["devices"][0];
        assert_eq!(cpu["device"], "cpu", "{listed}");
        assert!(cpu["name"].as_str().unwrap().contains(" core"), "{listed}");
        let missing = listed["training"]["missing"].as_array().unwrap();
        for (kind, built_in) in [
            ("cuda", cfg!(feature = "cuda")),
            ("wgpu", cfg!(feature = "wgpu")),
            ("torch", cfg!(feature = "torch")),
        ] {
            let entry = missing.iter().find(|entry| entry["kind"] == kind);
            let reason = entry.map_or("", |entry| entry["reason"].as_str().unwrap());
            let explained = reason.contains(&format!("--features {kind}"));
            assert_eq!(explained, !built_in, "{listed}");
        }
    }

    #[test]
    fn unavailable_device_is_an_error_that_lists_available_ones() {
        let dir = workplace();
        fs::write(dir.path().join("c.toml"), CONFIG).unwrap();
        let none = |device| ["--device", device, "available devices: cpu (", " core"];
        assert_refused(
            dir.path(),
            &[
                (&train("wgpu:1000"), &none("wgpu:1000")),
                (&train("cuda:1000"), &none("cuda:1000")),
                (&train("torch:cuda:1000"), &none("torch:cuda:1000")),
                (&train("gpu"), &["gpu"]),
                (
                    &format!("{} --set train.precision=bf16", train("cpu")),
                    &["train.precision", "fp32"],
                ),
            ],
        );
    }

    /// A missing driver is an error, not a panic.
    #[cfg(feature = "wgpu")]
    #[test]
    fn wgpu_without_a_driver_is_an_error() {
        const NO_DRIVER: [(&str, &str); 2] = [
            ("VK_DRIVER_FILES", "/nowhere"),
            ("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere"),
        ];
        let dir = workplace();
        fs::write(dir.path().join("c.toml"), CONFIG).unwrap();
        let listed = devices(&NO_DRIVER);
        let missing = listed["training"]["missing"].as_array().unwrap();
        let wgpu = missing.iter().find(|entry| entry["kind"] == "wgpu");
        assert!(wgpu.is_some(), "{listed}");
        for device in ["wgpu", "wgpu:0"] {
            let mut command = rgby();
            command.args(train(device).split_whitespace());
            let refused = finish(command.current_dir(dir.path()).envs(NO_DRIVER));
            assert_eq!(refused.code, Some(2), "{refused:?}");
            assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
            for part in ["--device", "no driver", "available devices: cpu ("] {
                assert!(refused.stderr.contains(part), "no {part} in {refused:?}");
            }
        }
    }
}
