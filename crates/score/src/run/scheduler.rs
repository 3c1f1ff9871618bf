//! Selection of a shard, by number or from the environment of a scheduler.

use std::env;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::{ScoreObserver, Shard};
use rgby_imaging::Sample;

/// Index of a pod in an Indexed Job of Kubernetes.
const KUBERNETES: &str = "JOB_COMPLETION_INDEX";
/// Index of a task in a job array of Slurm.
const SLURM: &str = "SLURM_ARRAY_TASK_ID";

/// The shard to score; all samples by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardSelection {
    pub shard: Option<ShardChoice>,
    /// Number of shards; the scheduler gives the index.
    pub shards: Option<NonZeroU32>,
}

/// A value of `--shard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardChoice {
    /// The scheduler gives the index.
    Auto,
    Given(Shard),
}

impl FromStr for ShardChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Given)
    }
}

/// The environment and the options do not name a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShardError(String);

/// The shard to score and a line about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvedShard {
    pub(super) shard: Option<Shard>,
    note: Option<String>,
}

impl ResolvedShard {
    /// Keeps the samples that belong to the shard.
    pub(super) fn select(
        &self,
        mut samples: Vec<Sample>,
        observer: &dyn ScoreObserver,
    ) -> Vec<Sample> {
        let listed = samples.len();
        if let Some(shard) = self.shard {
            samples.retain(|sample| shard.holds(&sample.id));
            samples.shrink_to_fit();
        }
        if let Some(note) = &self.note {
            let count = samples.len();
            let counts = self.shard.map(|_| format!(": {count} of {listed} samples"));
            observer.note(&format!("{note}{}", counts.unwrap_or_default()));
        }
        samples
    }
}

/// Looks up an environment variable.
type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

impl ShardSelection {
    /// Determines the shard from the options and the environment of this process.
    pub(super) fn resolve(self) -> Result<ResolvedShard, ShardError> {
        let lookup = |name: &str| env::var_os(name).map(|v| v.to_string_lossy().into_owned());
        self.resolve_in(&lookup).map_err(ShardError)
    }

    fn resolve_in(self, env: &Lookup) -> Result<ResolvedShard, String> {
        match (self.shard, self.shards) {
            (Some(ShardChoice::Given(shard)), None) => Ok(ResolvedShard {
                shard: Some(shard),
                note: Some(format!("shard {shard}")),
            }),
            (Some(ShardChoice::Given(shard)), Some(_)) => Err(format!(
                "--shard {shard} already gives the number of shards\n\
                 hint: leave out --shards, or use --shard auto"
            )),
            (None, None) => Ok(ResolvedShard {
                shard: None,
                // The job array may serve another purpose.
                note: [KUBERNETES, SLURM].into_iter().find_map(|name| {
                    env(name)?;
                    Some(format!(
                        "{name} is set, but there is no --shard: all samples are scored; \
                         --shard auto scores the shard of this task"
                    ))
                }),
            }),
            (Some(ShardChoice::Auto) | None, count) => {
                let (shard, variable) = from_scheduler(env, count.map(NonZeroU32::get))?;
                Ok(ResolvedShard {
                    shard: Some(shard),
                    note: Some(format!("shard {shard}, by {variable}")),
                })
            }
        }
    }
}

/// Returns the shard that the scheduler assigns, and the variable that holds its index.
fn from_scheduler(env: &Lookup, count: Option<u32>) -> Result<(Shard, &'static str), String> {
    match (env(KUBERNETES), env(SLURM)) {
        (Some(_), Some(_)) => Err(format!(
            "both {KUBERNETES} and {SLURM} are set\nhint: name the shard with --shard i/n"
        )),
        (Some(_), None) => {
            let count = count.ok_or_else(|| {
                format!(
                    "{KUBERNETES} does not give the number of shards\n\
                     hint: add --shards N, the number of completions"
                )
            })?;
            let index = number(env, KUBERNETES)?;
            if index >= count {
                return Err(format!(
                    "{KUBERNETES} is {index}, but --shards {count} counts from 0 to {}\n\
                     hint: set completions and --shards to the same number",
                    count - 1
                ));
            }
            Ok((Shard::new(index, count)?, KUBERNETES))
        }
        (None, Some(_)) => Ok((from_slurm(env, count)?, SLURM)),
        (None, None) => Err(format!(
            "neither {KUBERNETES} nor {SLURM} is set, so the shard is unknown\n\
             hint: name it with --shard i/n"
        )),
    }
}

/// Returns the shard of a task of a Slurm array.
///
/// With `count`, the index of the task is that of the shard, so that an array of only some tasks,
/// submitted again, scores the same shards. Without it, the array must cover all shards, and may
/// start at any index.
fn from_slurm(env: &Lookup, count: Option<u32>) -> Result<Shard, String> {
    let id = number(env, SLURM)?;
    let or = |name: &str, default| env(name).map_or(Ok(default), |_| number(env, name));
    if let Some(count) = count {
        let min = or("SLURM_ARRAY_TASK_MIN", id)?;
        let max = or("SLURM_ARRAY_TASK_MAX", id)?;
        if max > count || (min == 0 && max == count) {
            return Err(format!(
                "an array of tasks from {min} to {max} does not fit --shards {count}\n\
                 hint: use --array=0-{} or 1-{count}, or a part of it",
                count - 1
            ));
        }
        if id > max {
            return Err(format!("{SLURM} is {id}, but the array ends at {max}"));
        }
        return Shard::new(id, count);
    }
    let min = number(env, "SLURM_ARRAY_TASK_MIN")?;
    let max = number(env, "SLURM_ARRAY_TASK_MAX")?;
    let count = number(env, "SLURM_ARRAY_TASK_COUNT")?;
    let step = or("SLURM_ARRAY_TASK_STEP", 1)?.max(1);
    let is_even =
        (min..=max).contains(&id) && (max - min) / step + 1 == count && (id - min) % step == 0;
    if !is_even {
        return Err(format!(
            "an array of {count} tasks from {min} to {max} is not numbered in equal steps, so the shard of \
             task {id} is unknown\nhint: add --shards N"
        ));
    }
    // As with --shards, where that is possible.
    match (min, step) {
        (1, 1) => Shard::new(id, count),
        _ => Shard::new((id - min) / step, count),
    }
}

fn number(env: &Lookup, name: &str) -> Result<u32, String> {
    let text = env(name).ok_or_else(|| format!("{name} is not set\nhint: add --shards N"))?;
    let number = text.parse();
    number.map_err(|_| format!("{name} is `{text}`, not a number from 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolves the options where `variables` are set: `NAME=value`, separated by spaces.
    fn resolve(shard: &str, shards: u32, variables: &str) -> Result<ResolvedShard, String> {
        let selection = ShardSelection {
            shard: (!shard.is_empty()).then(|| shard.parse().unwrap()),
            shards: NonZeroU32::new(shards),
        };
        let env = |name: &str| {
            let mut pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
            let pair = pairs.find(|(found, _)| *found == name);
            pair.map(|(_, value)| value.to_owned())
        };
        selection.resolve_in(&env)
    }

    fn slurm(id: &str, [min, max, count, step]: [u32; 4]) -> String {
        format!(
            "SLURM_ARRAY_TASK_ID={id} SLURM_ARRAY_TASK_MIN={min} SLURM_ARRAY_TASK_MAX={max} \
             SLURM_ARRAY_TASK_COUNT={count} SLURM_ARRAY_TASK_STEP={step}"
        )
    }

    #[test]
    fn a_variable_alone_selects_no_shard_and_is_noted() {
        assert_eq!(resolve("", 0, ""), Ok(ResolvedShard::default()));
        for variables in ["JOB_COMPLETION_INDEX=3", "SLURM_ARRAY_TASK_ID=x"] {
            let resolved = resolve("", 0, variables).unwrap();
            assert_eq!(resolved.shard, None);
            let name = variables.split('=').next().unwrap();
            assert!(resolved.note.unwrap().starts_with(name));
        }
        // A named shard takes precedence.
        let resolved = resolve("2/4", 0, "JOB_COMPLETION_INDEX=3").unwrap();
        assert_eq!(resolved.shard, "2/4".parse().ok());
        assert_eq!(resolved.note.unwrap(), "shard 2/4");
    }

    #[test]
    fn the_scheduler_assigns_the_shard() {
        for (shard, shards, variables, wanted) in [
            ("", 8, "JOB_COMPLETION_INDEX=0".to_owned(), "0/8"),
            ("auto", 8, "JOB_COMPLETION_INDEX=7".into(), "7/8"),
            ("", 8, slurm("3", [0, 7, 8, 1]), "3/8"),
            ("", 8, slurm("8", [1, 8, 8, 1]), "0/8"),
            // Two tasks that are submitted again.
            ("", 8, slurm("8", [3, 8, 2, 5]), "0/8"),
            ("", 8, "SLURM_ARRAY_TASK_ID=5".into(), "5/8"),
            ("auto", 0, slurm("3", [0, 7, 8, 1]), "3/8"),
            ("auto", 0, slurm("8", [1, 8, 8, 1]), "0/8"),
            ("auto", 0, slurm("102", [100, 103, 4, 1]), "2/4"),
            ("auto", 0, slurm("8", [0, 15, 4, 4]), "2/4"),
        ] {
            let resolved = resolve(shard, shards, &variables).unwrap();
            assert_eq!(resolved.shard.unwrap().to_string(), wanted, "{variables}");
            let by = variables.split('=').next().unwrap();
            assert!(resolved.note.unwrap().contains(by));
        }
    }

    #[test]
    fn contradictions_are_errors() {
        for (shard, shards, variables, wanted) in [
            ("1/8", 8, String::new(), "leave out --shards"),
            (
                "",
                8,
                String::new(),
                "neither JOB_COMPLETION_INDEX nor SLURM",
            ),
            ("auto", 0, String::new(), "--shard i/n"),
            ("auto", 0, "JOB_COMPLETION_INDEX=1".into(), "add --shards N"),
            (
                "",
                8,
                "JOB_COMPLETION_INDEX=8".into(),
                "is 8, but --shards 8 counts from 0 to 7",
            ),
            ("", 8, "JOB_COMPLETION_INDEX=".into(), "is ``, not a number"),
            (
                "",
                8,
                "JOB_COMPLETION_INDEX=-1".into(),
                "`-1`, not a number",
            ),
            (
                "",
                8,
                "JOB_COMPLETION_INDEX=1 SLURM_ARRAY_TASK_ID=1".into(),
                "both",
            ),
            (
                "",
                8,
                slurm("x", [0, 7, 8, 1]),
                "SLURM_ARRAY_TASK_ID is `x`",
            ),
            ("", 8, slurm("0", [0, 8, 9, 1]), "--array=0-7 or 1-8"),
            ("", 8, slurm("9", [2, 9, 8, 1]), "does not fit --shards 8"),
            (
                "",
                8,
                "SLURM_ARRAY_TASK_ID=9".into(),
                "does not fit --shards 8",
            ),
            ("", 8, slurm("7", [0, 3, 4, 1]), "ends at 3"),
            (
                "auto",
                0,
                "SLURM_ARRAY_TASK_ID=1".into(),
                "SLURM_ARRAY_TASK_MIN is not set",
            ),
            (
                "auto",
                0,
                slurm("3", [1, 7, 3, 1]),
                "not numbered in equal steps",
            ),
            ("auto", 0, slurm("9", [0, 7, 8, 1]), "task 9"),
            ("auto", 0, slurm("5", [0, 12, 4, 4]), "task 5"),
        ] {
            let error = resolve(shard, shards, &variables).unwrap_err();
            assert!(error.contains(wanted), "{variables}: {error}");
        }
        assert!("Auto".parse::<ShardChoice>().is_err());
    }
}
