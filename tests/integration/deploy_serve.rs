//! Container image, Kubernetes manifests and systemd unit of the server: runs each of their
//! commands, and checks shutdown times and permissions.

use std::fs;
use std::process::Command;

use super::deploy::{assert_fit_kubernetes, between, deployed};
use super::serve_support::{Server, planes, receive, send};
use super::serve_tls::{certificate, https};
use super::support::{rgby, run, skipped, tiny_model, workplace, write_model};

const IMAGE: &str = "docker/Dockerfile";
const MANIFESTS: [&str; 2] = ["serve/kubernetes.yaml", "serve/kserve.yaml"];
const UNIT: &str = "serve/rgby.service";

fn text(file: &str) -> String {
    fs::read_to_string(deployed(file)).unwrap()
}

/// Returns the rest of the only line with a prefix.
fn only<'a>(text: &'a str, prefix: &str) -> &'a str {
    let mut found = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(prefix));
    let only = found.next().unwrap_or_else(|| panic!("no {prefix}"));
    assert_eq!(found.next(), None, "{prefix}");
    only.trim()
}

/// Returns a command of the image: the list in the line with this prefix.
fn image_command(prefix: &str) -> Vec<String> {
    let image = text(IMAGE);
    let suffix = only(&image, prefix);
    let list = prefix.strip_prefix("CMD ").unwrap();
    serde_json::from_str(&format!("{list}{suffix}")).unwrap()
}

/// Returns the arguments of `rgby` in each of the files.
fn commands() -> Vec<(&'static str, Vec<String>)> {
    let unit = text(UNIT);
    let unit = only(&unit, "ExecStart=/usr/local/bin/rgby ");
    let unit = unit.split(' ').map(str::to_owned).collect();
    let manifests = MANIFESTS.map(|file| {
        let args = between(&text(file), "args:", "ports:").into_iter();
        let args = args.map(|arg| arg.strip_prefix("- ").unwrap().to_owned());
        (file, args.collect())
    });
    [(IMAGE, image_command("CMD [\"serve\"")), (UNIT, unit)]
        .into_iter()
        .chain(manifests)
        .collect()
}

#[test]
fn all_flags_are_in_the_help_of_serve() {
    let dir = workplace();
    let help = run(dir.path(), "serve --help").stdout;
    for (file, args) in commands() {
        assert_eq!(args[0], "serve", "{file}");
        for arg in &args[1..] {
            let flag = arg.split('=').next().unwrap();
            assert!(flag.starts_with("--"), "{file}: {arg}");
            let mut words = help.split_whitespace();
            assert!(words.any(|word| word == flag), "{file}: {flag}");
        }
    }
}

#[test]
fn all_commands_serve_pass_their_probes_and_shut_down() {
    let dir = workplace();
    let path = dir.path();
    write_model(&path.join("models/1/model.onnx"), &tiny_model());
    fs::write(path.join("keys"), "0123456789abcdef").unwrap();
    let tls = certificate(path, "cert.pem", "key.pem");
    let cert = path.join("cert.pem");
    // Replaces mounted folders, and the name that KServe fills in.
    let local = |arg: &str| {
        let (flag, value) = arg.split_once('=').unwrap();
        let here = match flag {
            "--addr" => "127.0.0.1:0",
            "--model" => "model.onnx",
            "--model-dir" => "models",
            "--api-key-file" => "keys",
            "--tls-cert" => "cert.pem",
            "--tls-key" => "key.pem",
            "--name" => "rgby",
            _ => value,
        };
        format!("{flag}={here}")
    };
    for (file, args) in commands() {
        let args: Vec<String> = args[1..].iter().map(|arg| local(arg)).collect();
        let args = args.join(" ");
        let has_tls = args.contains("--tls-cert");
        if has_tls && !tls {
            continue;
        }
        let mut server = Server::start_with(path, &args);
        let text = text(file);
        let probes = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("path: "));
        for probe in probes.chain(["/v2/health/ready"]) {
            let status = if has_tls {
                let mut stream = https(&server, &cert);
                send(&mut stream, "GET", probe, &[], b"").unwrap();
                receive(&mut stream).unwrap().status
            } else {
                server.get(probe).status
            };
            assert_eq!(status, 200, "{file}: {probe}");
        }
        let secure = text.lines().filter(|line| line.trim() == "scheme: HTTPS");
        assert_eq!(secure.count(), if has_tls { 3 } else { 0 });
        server.signal("TERM");
        assert_eq!(server.wait(), Some(143), "{file}: {}", server.log());
    }
}

#[test]
fn termination_grace_periods_cover_the_drain_time() {
    // Seconds for exporting the last traces, and for the exit.
    const MARGIN: u64 = 5 + 3;
    for (file, time) in [
        (MANIFESTS[0], "terminationGracePeriodSeconds: "),
        (MANIFESTS[1], "terminationGracePeriodSeconds: "),
        (UNIT, "TimeoutStopSec="),
    ] {
        let text = text(file);
        let grace_period: u64 = only(&text, time).parse().unwrap();
        let hook = text.lines().find_map(|line| {
            let seconds = line.trim().strip_prefix("command: [sleep, \"")?;
            seconds.strip_suffix("\"]")?.parse::<u64>().ok()
        });
        let (_, args) = commands()
            .into_iter()
            .find(|(name, _)| *name == file)
            .unwrap();
        let drain = args
            .iter()
            .find_map(|arg| arg.strip_prefix("--drain="))
            .unwrap();
        let drain: u64 = drain.strip_suffix('s').unwrap().parse().unwrap();
        assert!(grace_period >= hook.unwrap_or(0) + drain + MARGIN, "{file}");
    }
    assert!(text(MANIFESTS[0]).contains("preStop:"));
}

#[test]
fn server_manifests_match_the_kubernetes_api_schema() {
    assert_fit_kubernetes(MANIFESTS.map(deployed));
}

#[test]
fn servers_do_not_run_as_root() {
    let image = text(IMAGE);
    let user = only(&image, "USER ");
    let (user, group) = user.split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && user == group);
    for file in MANIFESTS {
        let text = text(file);
        assert_eq!(only(&text, "runAsUser: "), user, "{file}");
        for line in [
            "runAsNonRoot: true",
            "readOnlyRootFilesystem: true",
            "drop: [ALL]",
        ] {
            assert!(
                text.lines().any(|found| found.trim() == line),
                "{file}: {line}"
            );
        }
    }
    assert_eq!(only(&text(UNIT), "DynamicUser="), "yes");
}

#[test]
fn systemd_accepts_the_unit() {
    let dir = workplace();
    let unit = text(UNIT);
    // systemd checks that the program exists.
    let program = rgby().get_program().to_str().unwrap().to_owned();
    let unit = unit.replace("/usr/local/bin/rgby", &program);
    let path = dir.path().join("rgby.service");
    fs::write(&path, unit).unwrap();
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output();
    match verified {
        Err(error) => skipped(format_args!("no systemd-analyze: {error}")),
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && stderr.is_empty(), "{stderr}");
        }
    }
}

#[test]
fn the_images_health_check_detects_a_stopped_server() {
    let check = image_command("CMD [\"bash\"");
    let script = &check[2];
    assert!(script.contains("/8000 "), "{script}");
    let healthy = |port: u16| {
        let script = script.replace("/8000 ", &format!("/{port} "));
        let mut bash = Command::new("bash");
        bash.args(["-c", &script])
            .output()
            .unwrap()
            .status
            .success()
    };
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let port = server.addr.port();
    assert!(healthy(port));
    drop(server);
    assert!(!healthy(port));
}

/// For containers with a read-only file system and an unprivileged user.
#[test]
fn a_server_writes_no_file_and_needs_no_home() {
    let dir = workplace();
    let model = dir.path().join("model.onnx");
    // In a folder where not even root can write, and with a file size limit of zero.
    let script =
        "unset HOME USER XDG_RUNTIME_DIR XDG_CACHE_HOME; cd /proc; ulimit -f 0; exec \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(rgby().get_program())
        .args(["serve", "--addr", "127.0.0.1:0", "--model"])
        .arg(model)
        .env("TMPDIR", "/proc");
    let mut server = Server::run(command);
    let body = planes(&[[255; 4]]);
    assert_eq!(
        server.post("/v2/models/rgby/infer", &body).values().len(),
        28
    );
    server.signal("HUP");
    server.wait_for_log("serving model `rgby`");
    server.assert_healthy();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(143));
}
