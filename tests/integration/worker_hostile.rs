//! `rgby score --worker` with invalid streams, signals, and closed pipes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use arrow_array::{ArrayRef, BinaryArray, Int32Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::DataType;
use rgby::imaging::CHANNELS;

use crate::support::{assert_refused, signal, workplace_with_samples};
use crate::worker::{WORKER, WorkerProcess, plate, request, schema, start};

/// Writes bytes to a worker. Returns its exit code, whether its output has an end-of-stream marker,
/// and its stderr.
fn write_to_worker(dir: &Path, args: &str, bytes: &[u8]) -> (Option<i32>, bool, String) {
    let mut child = start(dir, args);
    let mut stdin = child.stdin.take().unwrap();
    // The process may exit before it has read all bytes.
    let _ = stdin.write_all(bytes);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let complete = output.stdout.ends_with(&[255, 255, 255, 255, 0, 0, 0, 0]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), complete, stderr)
}

fn encoded(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn invalid_streams_end_the_worker_with_one_error() {
    let dir = workplace_with_samples();
    let path = dir.path();
    let ids = ["dark", "light", "mixed"].map(str::to_owned);
    let batch = request(&path.join("images"), &ids, &DataType::Binary);
    let good = encoded(&batch);
    assert_eq!(write_to_worker(path, "", &good).0, Some(0));
    let (code, complete, stderr) = write_to_worker(path, "", b"");
    assert_eq!((code, complete), (Some(0), true), "{stderr}");
    let without_blue = encoded(&batch.project(&[0, 1, 2, 4]).unwrap());
    let numbers = {
        let mut columns = batch.columns().to_vec();
        columns[2] = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let names = ["id"].into_iter().chain(CHANNELS);
        encoded(&RecordBatch::try_from_iter(names.zip(columns)).unwrap())
    };
    let large = {
        let bytes = vec![0_u8; 700_000];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["a"]))];
        let column: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&bytes]));
        columns.extend(vec![column; 4]);
        encoded(&RecordBatch::try_new(schema(&DataType::Binary), columns).unwrap())
    };
    for (args, bytes, expected) in [
        ("", &b"Id,Predicted\n"[..], "stdin"),
        ("", &good[..good.len() - 100], "in the middle of batch 1"),
        ("", &without_blue, "no column `blue`"),
        ("", &numbers, "`green` is Int32"),
        (
            "--worker-batch-mib 2",
            &large,
            "batch 1 has more than 2 MiB",
        ),
    ] {
        let (code, complete, stderr) = write_to_worker(path, args, bytes);
        assert_eq!((code, complete), (Some(2), false), "{stderr}");
        let errors: Vec<_> = stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{stderr}");
        assert!(errors[0].contains(expected), "{stderr}");
    }
    assert_eq!(
        write_to_worker(path, "--worker-batch-mib 3", &large).0,
        Some(1)
    );
}

#[test]
fn options_for_files_conflict_with_worker() {
    let dir = workplace_with_samples();
    let cases = [
        "--images images",
        "--out out.csv",
        "--ids ids.csv",
        "--scores p.csv",
        "--embeddings e.csv",
        "--shard 0/2",
        "--shards 2",
        "--resume",
        "--part-size 9",
        "--max-errors 1",
        "--json",
    ]
    .map(|flag| format!("{WORKER} {flag}"));
    let cases = cases
        .each_ref()
        .map(|args| (args.as_str(), &["--worker"][..]));
    assert_refused(dir.path(), &cases);
    assert_refused(
        dir.path(),
        &[
            ("score --model model.onnx", &["--images", "--out"]),
            (
                "score --model model.onnx --images images --out o.csv --worker-batch-mib 9",
                &["--worker-batch-mib"],
            ),
        ],
    );
}

#[test]
#[cfg(unix)]
fn sigterm_ends_the_worker_after_a_complete_response() {
    let dir = plate();
    let path = dir.path();
    let ids: Vec<String> = {
        let names = fs::read_dir(path.join("images")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter_map(|name| Some(name.strip_suffix("_red.png")?.to_owned()))
            .collect()
    };
    let batch = request(&path.join("images"), &ids, &DataType::Binary);
    // SIGTERM while the worker waits for samples.
    let mut worker = WorkerProcess::start(path, "", &schema(&DataType::Binary));
    worker.send(&batch);
    assert_eq!(worker.receive().num_rows(), ids.len());
    signal(&worker.child, "TERM");
    assert_eq!(worker.end().0, Some(143));
    // SIGTERM while it scores. A batch in progress gets a complete response, any other gets none.
    let many: Vec<String> = ids.iter().cycle().take(4000).cloned().collect();
    let batch = request(&path.join("images"), &many, &DataType::Binary);
    let row_counts = [1, 4, 16, 64].map(|wait| {
        let mut worker = WorkerProcess::start(path, "", &schema(&DataType::Binary));
        worker.send(&batch);
        sleep(Duration::from_millis(10 * wait));
        signal(&worker.child, "TERM");
        let rows = worker
            .responses
            .next()
            .map_or(0, |response| response.unwrap().num_rows());
        assert_eq!(worker.end().0, Some(143));
        rows
    });
    assert!(row_counts.iter().all(|rows| [0, many.len()].contains(rows)));
    assert!(row_counts.contains(&many.len()), "{row_counts:?}");
}

#[test]
fn worker_ends_when_its_stdout_is_closed() {
    let dir = workplace_with_samples();
    let ids = ["dark".to_owned()];
    let batch = request(&dir.path().join("images"), &ids, &DataType::Binary);
    let mut child = start(dir.path(), "");
    let mut requests = StreamWriter::try_new(child.stdin.take().unwrap(), &batch.schema()).unwrap();
    drop(child.stdout.take());
    // The process may have exited before this write.
    let _ = requests.write(&batch).and_then(|()| requests.flush());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cannot write to stdout"), "{stderr}");
}
