//! A child process with a log, in its own process group, killed when dropped.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::namespace;
use crate::reaper;
use crate::wait::wait_for;

/// A running child. Dropping it kills its whole group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its standard error, and its standard output unless piped by the caller, in `log`.
    pub fn start(name: &str, command: Command, log: &Path) -> Self {
        Self::start_with(name, command, log, Stdio::null(), None)
    }

    /// The same with chosen standard input and output.
    pub fn start_with(name: &str, command: Command, log: &Path, input: Stdio, output: Option<Stdio>) -> Self {
        let mut command = namespace::entered(command);
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("open the log of a child process");
        let shared = file.try_clone().expect("share the log between both outputs");
        command
            .stdin(input)
            .stderr(file)
            .stdout(output.unwrap_or_else(|| shared.into()))
            .process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {name} ({:?}): {error}", command.get_program()));
        reaper::kill_at_exit(child.id());
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            exited: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Where it writes.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.try_exit().is_none()
    }

    /// SIGKILL to the group; returns when it is gone.
    pub fn kill(&mut self) {
        if self.is_running() {
            reaper::forget(self.child.id());
            // Failing means that it has gone between the two steps, which is what was wanted.
            let _ = kill_process_group(self.rustix_pid(), Signal::KILL);
            self.exited = Some(self.child.wait().expect("wait for a child of ours"));
        }
    }

    /// SIGTERM, as an operator stops a program.
    pub fn terminate(&mut self) {
        if self.is_running() {
            kill_process(self.rustix_pid(), Signal::TERM).expect("signal a child of ours");
        }
    }

    /// SIGSTOP to the group.
    pub fn freeze(&self) {
        kill_process_group(self.rustix_pid(), Signal::STOP).expect("stop a child of ours");
    }

    /// SIGCONT to the group.
    pub fn thaw(&self) {
        kill_process_group(self.rustix_pid(), Signal::CONT).expect("continue a child of ours");
    }

    /// Waits until it ends by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_for(&what, limit, || {
            self.try_exit()
                .ok_or_else(|| format!("it still runs; its log:\n{}", self.log_tail()))
        })
    }

    /// SIGTERM, then the exit code within `limit`.
    pub fn stop(&mut self, limit: Duration) -> i32 {
        self.terminate();
        let status = self.wait_exit(limit);
        status
            .code()
            .unwrap_or_else(|| panic!("{} ended by signal {:?}", self.name, status.signal()))
    }

    /// Panics with its log if it has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.try_exit() {
            panic!("{} has ended ({status}):\n{}", self.name, self.log_tail());
        }
    }

    /// A figure in KiB from /proc/PID/status, such as `VmHWM`, the peak of resident memory.
    pub fn memory_kib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let figure = line
            .and_then(|line| line.split_whitespace().next())
            .and_then(|text| text.parse().ok());
        figure.unwrap_or_else(|| panic!("{path} has no {field}"))
    }

    fn try_exit(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().expect("look after a child of ours");
        }
        self.exited
    }

    fn rustix_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workdir::WorkDir;

    #[test]
    fn a_dropped_process_is_gone_with_its_children() {
        let work = WorkDir::create("process");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 300 & echo $!; wait"]);
        let process = Process::start("a shell", command, &work.join("log"));
        let grandchild = wait_for("the grandchild's id", Duration::from_secs(5), || {
            process
                .log()
                .trim()
                .parse::<u32>()
                .map_err(|_| "nothing written yet")
        });
        drop(process);
        // Killed at once, but reaped by whoever is its parent now: gone or a zombie.
        wait_for(
            "the grandchild's end",
            Duration::from_secs(5),
            || match fs::read_to_string(format!("/proc/{grandchild}/stat")) {
                Err(_) => Ok(()),
                Ok(stat) if stat.contains(") Z ") => Ok(()),
                Ok(stat) => Err(stat),
            },
        );
    }
}
