//! Which share of the samples is scored: `--shard`, `--shards`, and what a scheduler says.

use std::env;
use std::num::NonZeroU32;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use clap::Args;

use super::super::Ui;
use crate::imaging::Sample;
use crate::score::Shard;

/// Kubernetes' number of a pod of an Indexed Job.
const KUBERNETES: &str = "JOB_COMPLETION_INDEX";
/// Slurm's number of a task of a job array.
const SLURM: &str = "SLURM_ARRAY_TASK_ID";

/// Shard options.
#[derive(Debug, Clone, Args)]
pub struct ShardArgs {
    /// Score one of n shards: 0/n to n-1/n, or 1/n to n/n
    ///
    /// A hash of the id decides the shard of a sample. `auto` takes i from `JOB_COMPLETION_INDEX`
    /// (Kubernetes) or `SLURM_ARRAY_TASK_ID`, and n from --shards or `SLURM_ARRAY_TASK_COUNT`.
    #[arg(long, value_name = "i/n|auto")]
    pub shard: Option<ShardChoice>,
    /// Number of shards; the scheduler gives the index, as with `--shard auto`
    #[arg(long, value_name = "N")]
    pub shards: Option<NonZeroU32>,
}

/// A value of `--shard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardChoice {
    /// What the scheduler says.
    Auto,
    /// This one.
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

/// What is scored, and what to say of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) shard: Option<Shard>,
    note: Option<String>,
}

impl Share {
    /// The samples that belong to it.
    pub(super) fn of(&self, mut samples: Vec<Sample>, ui: &Ui) -> Vec<Sample> {
        let listed = samples.len();
        if let Some(shard) = self.shard {
            samples.retain(|sample| shard.holds(&sample.id));
            samples.shrink_to_fit();
        }
        if let Some(note) = &self.note {
            let count = samples.len();
            let share = self.shard.map(|_| format!(": {count} of {listed} samples"));
            ui.note(&format!("{note}{}", share.unwrap_or_default()));
        }
        samples
    }
}

/// Looks up an environment variable.
type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

impl ShardArgs {
    /// The shard, by the flags and this process's environment.
    pub(super) fn resolve(&self) -> anyhow::Result<Share> {
        self.resolve_in(&|name| env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    fn resolve_in(&self, env: &Lookup) -> anyhow::Result<Share> {
        match (self.shard, self.shards) {
            (Some(ShardChoice::Given(shard)), None) => Ok(Share {
                shard: Some(shard),
                note: Some(format!("shard {shard}")),
            }),
            (Some(ShardChoice::Given(shard)), Some(_)) => bail!(
                "--shard {shard} says how many shards there are; leave out --shards, or say \
                 --shard auto"
            ),
            (None, None) => Ok(Share {
                shard: None,
                // A job array may have any other purpose.
                note: [KUBERNETES, SLURM].into_iter().find_map(|name| {
                    env(name)?;
                    Some(format!(
                        "{name} is set, but there is no --shard: all samples are scored; \
                         --shard auto would score this task's share"
                    ))
                }),
            }),
            (Some(ShardChoice::Auto) | None, count) => {
                let (shard, by) = by_scheduler(env, count.map(NonZeroU32::get))?;
                Ok(Share {
                    shard: Some(shard),
                    note: Some(format!("shard {shard}, by {by}")),
                })
            }
        }
    }
}

/// The shard that the scheduler says, and the variable that says it.
fn by_scheduler(env: &Lookup, count: Option<u32>) -> anyhow::Result<(Shard, &'static str)> {
    match (env(KUBERNETES), env(SLURM)) {
        (Some(_), Some(_)) => {
            bail!("both {KUBERNETES} and {SLURM} are set; say which shard it is: --shard i/n")
        }
        (Some(_), None) => {
            let count = count.with_context(|| {
                format!("{KUBERNETES} does not say of how many; add --shards N, the completions")
            })?;
            let index = number(env, KUBERNETES)?;
            ensure!(
                index < count,
                "{KUBERNETES} is {index}, but --shards {count} counts from 0 to {}; make \
                 completions and --shards the same",
                count - 1
            );
            Ok((new(index, count)?, KUBERNETES))
        }
        (None, Some(_)) => Ok((slurm(env, count)?, SLURM)),
        (None, None) => bail!(
            "neither {KUBERNETES} nor {SLURM} is set, so that nothing says which shard it is; \
             use --shard i/n"
        ),
    }
}

/// The shard of a task of a Slurm array.
///
/// With `count` the task's number is the shard's, so that an array of only some of them, begun
/// again, scores the same ones. Without, the array is all there is, wherever it starts.
fn slurm(env: &Lookup, count: Option<u32>) -> anyhow::Result<Shard> {
    let id = number(env, SLURM)?;
    let or = |name: &str, default| env(name).map_or(Ok(default), |_| number(env, name));
    if let Some(count) = count {
        let (min, max) = (
            or("SLURM_ARRAY_TASK_MIN", id)?,
            or("SLURM_ARRAY_TASK_MAX", id)?,
        );
        ensure!(
            max <= count && !(min == 0 && max == count),
            "an array of tasks from {min} to {max} does not fit --shards {count}; use \
             --array=0-{} or 1-{count}, or a part of it",
            count - 1
        );
        ensure!(id <= max, "{SLURM} is {id}, but the array ends at {max}");
        return new(id, count);
    }
    let min = number(env, "SLURM_ARRAY_TASK_MIN")?;
    let max = number(env, "SLURM_ARRAY_TASK_MAX")?;
    let count = number(env, "SLURM_ARRAY_TASK_COUNT")?;
    let step = or("SLURM_ARRAY_TASK_STEP", 1)?.max(1);
    ensure!(
        (min..=max).contains(&id) && (max - min) / step + 1 == count && (id - min) % step == 0,
        "an array of {count} tasks from {min} to {max} is not evenly numbered, so that nothing \
         says which share task {id} has; add --shards N"
    );
    // As with --shards, where that is possible.
    match (min, step) {
        (1, 1) => new(id, count),
        _ => new((id - min) / step, count),
    }
}

fn new(index: u32, count: u32) -> anyhow::Result<Shard> {
    Shard::new(index, count).map_err(anyhow::Error::msg)
}

fn number(env: &Lookup, name: &str) -> anyhow::Result<u32> {
    let text = env(name).with_context(|| format!("{name} is not set; add --shards N"))?;
    let number = text.parse();
    number.map_err(|_| anyhow::anyhow!("{name} is `{text}`, which is no number from 0 on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the flags mean where the variables are these: `NAME=value`, separated by spaces.
    fn resolve(shard: &str, shards: u32, variables: &str) -> Result<Share, String> {
        let args = ShardArgs {
            shard: (!shard.is_empty()).then(|| shard.parse().unwrap()),
            shards: NonZeroU32::new(shards),
        };
        let env = |name: &str| {
            let mut pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
            let pair = pairs.find(|(found, _)| *found == name);
            pair.map(|(_, value)| value.to_owned())
        };
        args.resolve_in(&env).map_err(|error| error.to_string())
    }

    fn slurm(id: &str, [min, max, count, step]: [u32; 4]) -> String {
        format!(
            "SLURM_ARRAY_TASK_ID={id} SLURM_ARRAY_TASK_MIN={min} SLURM_ARRAY_TASK_MAX={max} \
             SLURM_ARRAY_TASK_COUNT={count} SLURM_ARRAY_TASK_STEP={step}"
        )
    }

    #[test]
    fn a_variable_alone_shards_nothing_and_is_spoken_of() {
        assert_eq!(resolve("", 0, ""), Ok(Share::default()));
        for variables in ["JOB_COMPLETION_INDEX=3", "SLURM_ARRAY_TASK_ID=x"] {
            let share = resolve("", 0, variables).unwrap();
            assert_eq!(share.shard, None);
            let name = variables.split('=').next().unwrap();
            assert!(share.note.unwrap().starts_with(name));
        }
        // Whoever names the shard knows better.
        let share = resolve("2/4", 0, "JOB_COMPLETION_INDEX=3").unwrap();
        assert_eq!(share.shard, "2/4".parse().ok());
        assert_eq!(share.note.unwrap(), "shard 2/4");
    }

    #[test]
    fn the_scheduler_says_which_it_is() {
        for (shard, shards, variables, wanted) in [
            ("", 8, "JOB_COMPLETION_INDEX=0".to_owned(), "0/8"),
            ("auto", 8, "JOB_COMPLETION_INDEX=7".into(), "7/8"),
            ("", 8, slurm("3", [0, 7, 8, 1]), "3/8"),
            ("", 8, slurm("8", [1, 8, 8, 1]), "0/8"),
            // Two tasks that are run again.
            ("", 8, slurm("8", [3, 8, 2, 5]), "0/8"),
            ("", 8, "SLURM_ARRAY_TASK_ID=5".into(), "5/8"),
            ("auto", 0, slurm("3", [0, 7, 8, 1]), "3/8"),
            ("auto", 0, slurm("8", [1, 8, 8, 1]), "0/8"),
            ("auto", 0, slurm("102", [100, 103, 4, 1]), "2/4"),
            ("auto", 0, slurm("8", [0, 15, 4, 4]), "2/4"),
        ] {
            let share = resolve(shard, shards, &variables).unwrap();
            assert_eq!(share.shard.unwrap().to_string(), wanted, "{variables}");
            let by = variables.split('=').next().unwrap();
            assert!(share.note.unwrap().contains(by));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
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
            (
                "",
                8,
                "JOB_COMPLETION_INDEX=".into(),
                "is ``, which is no number",
            ),
            (
                "",
                8,
                "JOB_COMPLETION_INDEX=-1".into(),
                "`-1`, which is no number",
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
            ("auto", 0, slurm("3", [1, 7, 3, 1]), "not evenly numbered"),
            ("auto", 0, slurm("9", [0, 7, 8, 1]), "task 9"),
            ("auto", 0, slurm("5", [0, 12, 4, 4]), "task 5"),
        ] {
            let error = resolve(shard, shards, &variables).unwrap_err();
            assert!(error.contains(wanted), "{variables}: {error}");
        }
        assert!("Auto".parse::<ShardChoice>().is_err());
    }
}
