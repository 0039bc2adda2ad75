//! Nothing outlives the process that started it, however that process ends.
//!
//! A destructor does not run on SIGKILL, on Ctrl-C, or for what lives in a `static`. So one small shell process
//! waits at the end of a pipe whose other end only we hold: when the pipe closes, it kills the process groups it
//! was told of, and removes the directories. Before signalling, it checks the start time of the process, because
//! process ids are used again.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, Once, OnceLock};

const SCRIPT: &str = r#"
list=$(mktemp) || exit 1
keep=
while IFS= read -r line; do
  case $line in
    keep) keep=yes ;;
    +*) printf '%s\n' "${line#+}" >> "$list" ;;
    -*) grep -v -x -F -e "${line#-}" "$list" > "$list.new"; mv "$list.new" "$list" ;;
  esac
done
while read -r kind what start; do
  [ "$kind" = pid ] || continue
  now=$(sed 's/.*) //' "/proc/$what/stat" 2>/dev/null | cut -d' ' -f20)
  [ "$now" = "$start" ] && kill -s KILL -- "-$what" 2>/dev/null
done < "$list"
while read -r kind what; do
  [ "$kind" = dir ] && [ -z "$keep" ] && rm -rf -- "$what"
done < "$list"
rm -f "$list"
"#;

static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Says that the process group of `pid` is to be killed when we are gone.
pub fn kill_at_exit(pid: u32) {
    if let Some(start) = start_time(pid) {
        tell(&format!("+pid {pid} {start}"));
    }
}

/// Takes back [`kill_at_exit`]; called before the process is reaped, while its id still is its own.
pub fn forget(pid: u32) {
    if let Some(start) = start_time(pid) {
        tell(&format!("-pid {pid} {start}"));
    }
}

/// Says that a directory is to be removed when we are gone, unless something panicked: then it is kept for a look.
pub fn remove_directory_at_exit(path: &Path) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            earlier(info);
            keep_directories();
        }));
    });
    tell(&format!("+dir {}", path.display()));
    DIRECTORIES
        .lock()
        .expect("no panic while holding the list")
        .push(path.to_owned());
}

/// Takes back [`remove_directory_at_exit`].
pub fn keep_directory(path: &Path) {
    tell(&format!("-dir {}", path.display()));
    DIRECTORIES
        .lock()
        .expect("no panic while holding the list")
        .retain(|each| each != path);
}

fn keep_directories() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tell("keep");
        for directory in DIRECTORIES
            .lock()
            .expect("no panic while holding the list")
            .iter()
        {
            eprintln!("kept for a look: {}", directory.display());
        }
    });
}

/// The 22nd field of /proc/PID/stat. The second holds the command in parentheses, which may contain anything.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_command = stat.rsplit_once(") ")?.1;
    after_command.split(' ').nth(19).map(str::to_owned)
}

fn tell(line: &str) {
    static PIPE: OnceLock<Mutex<(Child, ChildStdin)>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| Mutex::new(start()));
    let mut pipe = pipe.lock().expect("no panic while holding the pipe");
    writeln!(pipe.1, "{line}").expect("the reaper listens as long as we live");
}

/// Never awaited: it outlives us, and that is its use.
fn start() -> (Child, ChildStdin) {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // A group of its own: Ctrl-C goes to the whole foreground group, and this one has work to do then.
    command.process_group(0);
    let mut child = command.spawn().expect("start the reaper");
    let pipe = child.stdin.take().expect("its standard input is piped");
    (child, pipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_listed_is_killed_and_removed_when_the_pipe_closes() {
        let sleep = || {
            Command::new("sleep")
                .arg("300")
                .process_group(0)
                .spawn()
                .expect("start a sleep")
        };
        let (mut listed, mut forgotten) = (sleep(), sleep());
        let work = tempfile::tempdir().expect("create a directory");
        let (gone, kept) = (work.path().join("gone"), work.path().join("kept"));
        fs::create_dir(&gone).expect("create a directory");
        fs::create_dir(&kept).expect("create a directory");
        let (mut reaper, mut pipe) = start();
        for child in [&listed, &forgotten] {
            writeln!(
                pipe,
                "+pid {} {}",
                child.id(),
                start_time(child.id()).expect("it runs")
            )
            .expect("tell");
        }
        writeln!(
            pipe,
            "+dir {}\n+dir {}\n-dir {}",
            gone.display(),
            kept.display(),
            kept.display()
        )
        .expect("tell");
        writeln!(
            pipe,
            "-pid {} {}",
            forgotten.id(),
            start_time(forgotten.id()).expect("it runs")
        )
        .expect("tell");
        drop(pipe);
        assert!(reaper.wait().expect("the reaper ends").success());
        assert!(!listed.wait().expect("wait for the sleep").success(), "killed");
        assert!(
            forgotten.try_wait().expect("look after the sleep").is_none(),
            "left alone"
        );
        forgotten.kill().expect("kill the sleep");
        forgotten.wait().expect("wait for the sleep");
        assert!(!gone.exists() && kept.exists());
    }
}
