//! What `rgby score --worker` must survive: streams that make no sense, signals, readers that go.

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
use crate::worker::{WORKER, Worker, plate, request, schema, start};

/// Gives a worker these bytes: its exit code, whether its answers ended in order, what it said.
fn fed(dir: &Path, args: &str, bytes: &[u8]) -> (Option<i32>, bool, String) {
    let mut child = start(dir, args);
    let mut stdin = child.stdin.take().unwrap();
    // It may have ended before it took all of it.
    let _ = stdin.write_all(bytes);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let whole = output.stdout.ends_with(&[255, 255, 255, 255, 0, 0, 0, 0]);
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), whole, said)
}

fn encoded(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn streams_that_make_no_sense_end_it_with_one_error() {
    let dir = workplace_with_samples();
    let path = dir.path();
    let ids = ["dark", "light", "mixed"].map(str::to_owned);
    let batch = request(&path.join("images"), &ids, &DataType::Binary);
    let good = encoded(&batch);
    assert_eq!(fed(path, "", &good).0, Some(0));
    let (code, whole, said) = fed(path, "", b"");
    assert_eq!((code, whole), (Some(0), true), "{said}");
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
    for (args, bytes, wanted) in [
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
        let (code, whole, said) = fed(path, args, bytes);
        assert_eq!((code, whole), (Some(2), false), "{said}");
        let errors: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{said}");
        assert!(errors[0].contains(wanted), "{said}");
    }
    assert_eq!(fed(path, "--worker-batch-mib 3", &large).0, Some(1));
}

#[test]
fn flags_of_files_make_no_sense_beside_it() {
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
fn a_signal_ends_it_behind_a_whole_answer() {
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
    // While it waits for samples.
    let mut worker = Worker::start(path, "", &schema(&DataType::Binary));
    worker.send(&batch);
    assert_eq!(worker.receive().num_rows(), ids.len());
    signal(&worker.child, "TERM");
    assert_eq!(worker.end().0, Some(143));
    // While it scores: what was begun is answered whole, and what was not is not answered at all.
    let many: Vec<String> = ids.iter().cycle().take(4000).cloned().collect();
    let batch = request(&path.join("images"), &many, &DataType::Binary);
    let answered = [1, 4, 16, 64].map(|wait| {
        let mut worker = Worker::start(path, "", &schema(&DataType::Binary));
        worker.send(&batch);
        sleep(Duration::from_millis(10 * wait));
        signal(&worker.child, "TERM");
        let rows = worker
            .answers
            .next()
            .map_or(0, |answer| answer.unwrap().num_rows());
        assert_eq!(worker.end().0, Some(143));
        rows
    });
    assert!(answered.iter().all(|rows| [0, many.len()].contains(rows)));
    assert!(answered.contains(&many.len()), "{answered:?}");
}

#[test]
fn it_ends_with_whoever_reads_its_answers() {
    let dir = workplace_with_samples();
    let ids = ["dark".to_owned()];
    let batch = request(&dir.path().join("images"), &ids, &DataType::Binary);
    let mut child = start(dir.path(), "");
    let mut requests = StreamWriter::try_new(child.stdin.take().unwrap(), &batch.schema()).unwrap();
    drop(child.stdout.take());
    // It may be gone already when this is written.
    let _ = requests.write(&batch).and_then(|()| requests.flush());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot write to stdout"), "{said}");
}
