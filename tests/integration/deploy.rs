//! Runs the commands of the files in `deploy/` as a scheduler would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::{draw_images, finish, must, read, rgby, run, signal, skipped, workplace};

const SHARDS: usize = 8;

pub fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(file)
}

/// Returns a folder with the tiny model, 40 samples of which one is broken, and the results of a
/// run without shards.
fn plate() -> tempfile::TempDir {
    let dir = workplace();
    let path = dir.path();
    draw_images(path, 40, 32);
    let broken = fs::read_dir(path.join("images")).unwrap().next().unwrap();
    fs::write(broken.unwrap().path(), "no image").unwrap();
    let whole = run(
        path,
        "score --model model.onnx --images images --out predictions.csv --scores scores.csv",
    );
    assert_eq!(whole.code, Some(1), "{whole:?}");
    fs::create_dir(path.join("results")).unwrap();
    dir
}

fn assert_merged(dir: &Path) {
    for kind in ["predictions", "scores"] {
        let merged = format!("results/merged-{kind}.csv");
        assert!(
            read(dir, &merged) == read(dir, &format!("{kind}.csv")),
            "{kind}"
        );
    }
    assert!(
        read(dir, "results/merged-predictions.errors.csv") == read(dir, "predictions.errors.csv")
    );
}

/// Returns the lines of a YAML file between the lines `from` and `to`, without comments.
pub fn between(text: &str, from: &str, to: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != from)
        .skip(1);
    let lines = lines.take_while(|line| *line != to);
    lines
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn kubernetes_job_manifests_match_the_api_schema() {
    let files = ["score-job.yaml", "merge-job.yaml"];
    assert_fit_kubernetes(files.map(|file| deployed("kubernetes").join(file)));
}

/// Asserts that manifests match the schema of the Kubernetes API.
pub fn assert_fit_kubernetes<const N: usize>(files: [PathBuf; N]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes.py");
    let checked = match Command::new("python3").arg(script).args(files).output() {
        Ok(checked) => checked,
        Err(error) => return skipped(format_args!("no python3: {error}")),
    };
    let output = String::from_utf8_lossy(&checked.stdout);
    match checked.status.code() {
        Some(3) => skipped(format_args!(
            "the Python package kubernetes-validate: {output}"
        )),
        code => assert_eq!(code, Some(0), "{output}"),
    }
}

#[test]
fn kubernetes_jobs_score_and_merge() {
    let dir = plate();
    let path = dir.path();
    let job = fs::read_to_string(deployed("kubernetes/score-job.yaml")).unwrap();
    for line in [
        "completions: 8",
        "completionMode: Indexed",
        "restartPolicy: Never",
    ] {
        assert!(job.lines().any(|found| found.trim() == line), "{line}");
    }
    let args = between(&job, "args:", "resources:");
    assert!(args.contains(&format!("- --shards={SHARDS}")), "{args:?}");
    for index in 0..SHARDS {
        let index = index.to_string();
        let local = |arg: &String| {
            let arg = arg.strip_prefix("- ").unwrap();
            let arg = arg.replace("$(JOB_COMPLETION_INDEX)", &index);
            arg.replace("/data/", "").replace("/results/", "results/")
        };
        let mut pod = rgby();
        pod.args(args.iter().map(local))
            .env("JOB_COMPLETION_INDEX", &index);
        let pod = finish(pod.current_dir(path));
        assert_eq!(pod.code, Some(0), "{pod:?}");
    }
    let job = fs::read_to_string(deployed("kubernetes/merge-job.yaml")).unwrap();
    let script = between(&job, "- |", "resources:").join("\n");
    let script = script.replace("/results", "results");
    let program = PathBuf::from(rgby().get_program());
    let merged = Command::new("sh")
        .args(["-ec", &script])
        .env("PATH", path_with(program.parent().unwrap()))
        .current_dir(path)
        .output()
        .unwrap();
    assert_eq!(merged.status.code(), Some(0), "{merged:?}");
    assert_merged(path);
}

fn path_with(folder: &Path) -> std::ffi::OsString {
    let others = std::env::var_os("PATH").unwrap();
    let folders = [folder.to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&others));
    std::env::join_paths(folders).unwrap()
}

/// Mock of `sbatch`: runs the tasks of an array sequentially, then a dependent job. Appends its
/// arguments to the file `calls`.
const SBATCH: &str = r#"#!/usr/bin/env bash
set -euo pipefail
echo "sbatch $*" >> calls
last=''
while [[ $1 == --* ]]; do
    [[ $1 == --array=* ]] && last=${1#--array=0-}
    shift
done
export SLURM_JOB_ID=77
if [ -n "$last" ]; then
    export SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=$last
    export SLURM_ARRAY_TASK_COUNT=$((last + 1)) SLURM_ARRAY_TASK_STEP=1
    for task in $(seq 0 "$last"); do
        SLURM_ARRAY_TASK_ID=$task bash "$@" >&2
    done
else
    bash "$@" >&2
fi
echo "77;cluster"
"#;

/// Returns a command that runs `score-array.sh` with mocks of `sbatch` and `scontrol`.
fn slurm_script(dir: &Path, args: &str) -> Command {
    let bin = dir.join("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        let scontrol = "#!/usr/bin/env bash\necho \"scontrol $*\" >> calls\n";
        for (name, text) in [("sbatch", SBATCH), ("scontrol", scontrol)] {
            fs::write(bin.join(name), text).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let mut command = Command::new("bash");
    command
        .arg(deployed("slurm/score-array.sh"))
        .args(args.split_whitespace())
        .env("PATH", path_with(&bin))
        .env("RGBY", rgby().get_program())
        .current_dir(dir);
    command
}

#[test]
fn slurm_script_submits_scores_and_merges() {
    let dir = plate();
    let path = dir.path();
    let submitted = finish(&mut slurm_script(
        path,
        "submit model.onnx images results 8",
    ));
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let note = "shard 7/8, by SLURM_ARRAY_TASK_ID: ";
    assert!(submitted.stderr.contains(note), "{submitted:?}");
    let calls = read(path, "calls");
    let calls: Vec<&str> = calls.lines().collect();
    assert!(
        calls[0].starts_with("sbatch --parsable --array=0-7 "),
        "{calls:?}"
    );
    assert!(
        calls[1].starts_with("sbatch --dependency=afterok:77 "),
        "{calls:?}"
    );
    assert_eq!(calls.len(), 2);
    assert_merged(path);
    for wrong in ["", "score a b c", "guess model.onnx images results 8"] {
        let refused = slurm_script(path, wrong).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
}

#[test]
fn slurm_task_saves_its_work_at_the_time_limit_and_is_requeued() {
    let dir = workplace();
    let path = dir.path();
    must(path, "synth --out set --count 300 --size 384");
    fs::create_dir(path.join("results")).unwrap();
    let task = || {
        let mut task = slurm_script(path, "score model.onnx set/images results 1");
        task.stdout(Stdio::null()).stderr(Stdio::null());
        task.env("SLURM_ARRAY_JOB_ID", "42")
            .env("SLURM_ARRAY_TASK_ID", "0");
        task
    };
    let manifest = path.join("results/predictions-0.csv.parts/manifest.json");
    let mut child = task().spawn().unwrap();
    while !manifest.exists() {
        assert!(child.try_wait().unwrap().is_none(), "exited too early");
        sleep(Duration::from_millis(1));
    }
    sleep(Duration::from_millis(200));
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(read(path, "calls"), "scontrol requeue 42_0\n");
    assert!(
        fs::read_to_string(&manifest)
            .unwrap()
            .contains("\"first\": 0")
    );
    assert_eq!(task().status().unwrap().code(), Some(0));
    assert_eq!(read(path, "results/predictions-0.csv").lines().count(), 301);
    assert_eq!(read(path, "calls").lines().count(), 1);
}
