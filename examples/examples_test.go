package examples

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/tls"
)

// build builds an example for this port and returns the program's path.
func build(t *testing.T, name string) string {
	t.Helper()
	lwptest.SkipRace(t)
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the go tool, which builds the examples: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	program := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(ctx, goTool, "build", "-o", program, "./"+name)
	cmd.Env = append(os.Environ(), "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build ./%s: %v\n%s", name, err, out)
	}
	return program
}

// run runs what build has built; under emulation, with the emulator. It
// returns what the example has printed, and how it ended.
func run(t *testing.T, program string, args ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	tmp, name := t.TempDir(), filepath.Base(program)
	exe := func(command ...string) ([]byte, error) {
		command = append(command, args...)
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		return cmd.CombinedOutput()
	}
	begin := time.Now()
	out, err := exe(program)
	if errors.Is(err, syscall.ENOEXEC) {
		emulator := "qemu-" + map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
		if emulator, err = exec.LookPath(emulator); err != nil {
			t.Skip("this machine does not run the example itself, and has no emulator: ", err)
		}
		out, err = exe(emulator, program)
	}
	t.Logf("%s ran for %v and printed\n%s", name, time.Since(begin).Round(time.Millisecond), out)
	left, readErr := os.ReadDir(tmp)
	if readErr != nil || len(left) > 0 {
		t.Errorf("%s has left %v in its directory for temporary files (%v)", name, left, readErr)
	}
	return string(out), err
}

// ran builds and runs an example, which succeeds.
func ran(t *testing.T, name string, args ...string) string {
	t.Helper()
	return succeeds(t, build(t, name), args...)
}

func succeeds(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := run(t, program, args...)
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return out
}

// ranAtOnce is ran for an example that shows a race: that takes two threads
// that run at the same time, which happens late where CPUs have other work.
func ranAtOnce(t *testing.T, name string) (out string) {
	t.Helper()
	program := build(t, name)
	for end := time.Now().Add(4 * time.Minute); time.Now().Before(end); {
		out = succeeds(t, program)
		plain := regexp.MustCompile(`lost (\d+)`).FindStringSubmatch(out)
		if runtime.NumCPU() == 1 || plain == nil || plain[1] != "0" {
			break
		}
	}
	return out
}

// find returns the submatches of all matches of a pattern, of which there must
// be n. A pattern stands for whole lines, but for the spaces they begin with.
func find(t *testing.T, out, pattern string, n int) [][]string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^ *`+pattern+`$`).FindAllStringSubmatch(out, -1)
	if len(found) != n {
		t.Fatalf("%d lines like %q, want %d", len(found), pattern, n)
	}
	return found
}

// find1 is find for one line.
func find1(t *testing.T, out, pattern string) []string {
	t.Helper()
	return find(t, out, pattern, 1)[0]
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.ParseInt(s, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

func TestHelloIsPrintedByAnotherTask(t *testing.T) {
	out := ran(t, "hello")
	pid := find1(t, out, `main: process (\d+)`)[1]
	tid := find1(t, out, `thread: hello world, I am TID (\d+)`)[1]
	if tid == pid {
		t.Errorf("the thread's TID is the process's")
	}
	if joined := find1(t, out, `main: TID (\d+) has ended`)[1]; joined != tid {
		t.Errorf("TID %s was joined, TID %s ran", joined, tid)
	}
	if strings.Index(out, "has ended") < strings.Index(out, "hello") {
		t.Error("main says that the thread has ended before it has spoken")
	}
}

func TestRaceLosesAdditionsAndTheCuresDoNot(t *testing.T) {
	out := ranAtOnce(t, "race")
	want := number(t, find1(t, out, `\d+ threads add 1 to one counter \d+ times each; (\d+) is right\.`)[1])
	counts := find(t, out, `counted (\d+), lost (\d+), in .*`, 3)
	for i, way := range []string{"plain", "mutex", "atomic"} {
		n, lost := number(t, counts[i][1]), number(t, counts[i][2])
		if n+lost != want {
			t.Errorf("%s: %d counted and %d lost are not %d", way, n, lost, want)
		}
		if i > 0 && lost != 0 {
			t.Errorf("%s: %d additions lost", way, lost)
		}
	}
	switch lost := number(t, counts[0][2]); {
	case lost > 0:
		find1(t, out, `value both write the same successor, .*`)
	case runtime.NumCPU() > 1:
		t.Errorf("no addition lost on %d CPUs", runtime.NumCPU())
	default:
		find1(t, out, `This process may use one CPU only\. .*`)
	}
}

func TestTLSValuesAreEachThreadsOwn(t *testing.T) {
	out := ran(t, "tls")
	values := find(t, out, `thread (\d): set at first: (\w+), control block at (0x[0-9a-f]+), counted to (\d+)`, 3)
	blocks := map[string]bool{"0x0": true}
	for i, v := range values {
		if v[2] != "false" || blocks[v[3]] || number(t, v[4]) != (i+1)*100_000 {
			t.Errorf("wrong: %s", v[0])
		}
		blocks[v[3]] = true
	}
	find1(t, out, `main: set on a goroutine: false`)
}

func TestTLSDestructorsRunTheLastSetFirst(t *testing.T) {
	out := ran(t, "tls")
	var order []string
	for _, d := range find(t, out, `thread (\w): destructor of (\w+)`, 7) {
		order = append(order, d[1]+" "+d[2])
	}
	want := []string{"A third", "A second", "A first", "B first", "B second", "B third", "C second"}
	if !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	for i, p := range find(t, out, `pass (\d): destroyed, and set again`, tls.DestructorPasses) {
		if number(t, p[1]) != i+1 {
			t.Errorf("pass %s came as number %d", p[1], i+1)
		}
	}
}

func TestPrivateCwdIsNotSeenByTheProcess(t *testing.T) {
	out, err := run(t, build(t, "privatecwd"))
	if err != nil && lwptest.Emulated() {
		find1(t, out, `This program needs clone\(2\) to make a thread without CLONE_FS\. .*`)
		t.Skip("the emulator refuses clone(2) without CLONE_FS, and the program says so")
	}
	if err != nil {
		t.Fatal(err)
	}
	private, shared, ok := strings.Cut(out, "\n2. ")
	if !ok {
		t.Fatal("no second part")
	}
	type place struct{ cwd, umask string }
	at := func(part, who string) place {
		m := find1(t, part, who+`: +cwd (.*), umask (\d{4})`)
		return place{m[1], m[2]}
	}
	mode := func(part, who string, umask string) {
		m := find1(t, part, who+`: +created .*, asked for mode 0666, got (\d{4})`)
		got, _ := strconv.ParseUint(m[1], 8, 32)
		mask, _ := strconv.ParseUint(umask, 8, 32)
		if got != 0o666&^mask {
			t.Errorf("%s: mode %#o with umask %#o", who, got, mask)
		}
	}

	home := at(private, "process, before")
	if wd, err := os.Getwd(); err != nil || home.cwd != wd {
		t.Errorf("the process began in %s, started in %s (%v)", home.cwd, wd, err)
	}
	thread := at(private, "thread")
	if thread.cwd == home.cwd || thread.umask == home.umask {
		t.Errorf("the thread is at %v, and so is the process", thread)
	}
	if said := find1(t, private, `thread: +getcwd\(2\) gives (.*)`)[1]; said != thread.cwd {
		t.Errorf("getcwd gave %s, /proc has %s", said, thread.cwd)
	}
	if now := at(private, "process, meanwhile"); now != home {
		t.Errorf("a private thread has moved the process from %v to %v", home, now)
	}
	mode(private, "thread", thread.umask)
	mode(private, "process", home.umask)

	if before := at(shared, "process, before"); before != home {
		t.Errorf("the end of a private thread has moved the process from %v to %v", home, before)
	}
	for _, when := range []string{"meanwhile", "after"} {
		if now := at(shared, "process, "+when); now != thread {
			t.Errorf("%s: the process is at %v, the sharing thread went to %v", when, now, thread)
		}
	}
	mode(shared, "process", thread.umask)
	if now := at(shared, "process, put back"); now != home {
		t.Errorf("the process was put back to %v, not %v", now, home)
	}
}

func TestTourClaimsHold(t *testing.T) {
	out := ranAtOnce(t, "tour")
	section := map[int]string{}
	for _, s := range strings.Split(out, "\n== ")[1:] {
		n, body, _ := strings.Cut(s, ". ")
		section[number(t, n)] = body
	}
	if got := slices.Sorted(maps.Keys(section)); !slices.Equal(got, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}) {
		t.Fatalf("sections %v", got)
	}
	pid := find1(t, out, `process (\d+), go.*`)[1]

	t.Run("threads are of this process", func(t *testing.T) {
		tids := map[string]bool{pid: true}
		for _, m := range find(t, section[1], `thread \w: TID (\d+), getpid (\d+)`, 3) {
			if tids[m[1]] || m[2] != pid {
				t.Errorf("wrong: %s", m[0])
			}
			tids[m[1]] = true
		}
		for _, m := range find(t, section[1], `/proc: TID (\d+), name tour-[abc], thread group (\d+)`, 3) {
			if !tids[m[1]] || m[2] != pid {
				t.Errorf("wrong: %s", m[0])
			}
		}
	})
	t.Run("memory and descriptors are shared", func(t *testing.T) {
		find1(t, section[2], `main: number is 1`)
		find1(t, section[2], `main: number is 42 after .*`)
		find1(t, section[2], `main: descriptor \d+, .*, holds "water" .*`)
	})
	t.Run("the kernel sees them, the runtime does not", func(t *testing.T) {
		n := number(t, find1(t, section[3], `before +with (\d+) threads of ours`)[1])
		grown := func(what string) int {
			m := find1(t, section[3], what+` +(\d+) +(\d+)`)
			return number(t, m[2]) - number(t, m[1])
		}
		if m := find1(t, section[3], `(\d+) of the (\d+) TIDs are in /proc/self/task: .*`); number(t, m[1]) != n || m[1] != m[2] {
			t.Errorf("wrong: %s", m[0])
		}
		// The four threads of the sections before can still have been listed:
		// the kernel lets Join return a moment before it removes the entry.
		if d := grown(`entries of /proc/self/task`); d < n-4 {
			t.Errorf("%d more entries in /proc for %d threads", d, n)
		}
		if d := grown(`lwp\.Threads\(\)`); d != n {
			t.Errorf("%d more in Threads for %d threads", d, n)
		}
		// The runtime can have made a thread or two for itself meanwhile.
		for _, what := range []string{`runtime\.NumGoroutine\(\)`, `threads in the runtime's profile`} {
			if d := grown(what); d > n/4 {
				t.Errorf("%s has grown by %d with %d threads", what, d, n)
			}
		}
	})
	t.Run("join says what became of a thread", func(t *testing.T) {
		find1(t, section[4], `TryJoin on a running thread: +`+lwp.ErrRunning.Error())
		find1(t, section[4], `JoinFor\(5ms\) on it: +`+lwp.ErrTimeout.Error())
		find1(t, section[4], `JoinContext with a 5ms timeout: +`+context.DeadlineExceeded.Error())
		find1(t, section[4], `Join once it may end: +<nil>`)
		find1(t, section[4], `Detach: +<nil>`)
		find1(t, section[4], `Join of the detached thread: +`+lwp.ErrDetached.Error())
	})
	t.Run("one key has a value in each thread", func(t *testing.T) {
		m := find(t, section[5], `thread \d: set (\d+), read (\d+), thread pointer (\w+)`, 2)
		if m[0][1] == m[1][1] || m[0][3] == m[1][3] || m[0][1] != m[0][2] || m[1][1] != m[1][2] {
			t.Errorf("wrong: %s %s", m[0][0], m[1][0])
		}
		d := find(t, section[5], `destructor: value (\d+) of TID (\d+)`, 2)
		if d[0][1] == d[1][1] || d[0][2] == d[1][2] {
			t.Errorf("wrong: %s %s", d[0][0], d[1][0])
		}
	})
	t.Run("a mutex keeps what the race loses", func(t *testing.T) {
		want := number(t, find1(t, section[6], `\d+ threads add 1, \d+ times each: (\d+) is right`)[1])
		plain := find1(t, section[6], `n\+\+ alone: +(\d+), lost (\d+)`)
		if number(t, plain[1])+number(t, plain[2]) != want {
			t.Errorf("wrong: %s", plain[0])
		}
		if plain[2] == "0" {
			if runtime.NumCPU() > 1 {
				t.Errorf("no addition lost on %d CPUs", runtime.NumCPU())
			}
			find1(t, section[6], `Nothing was lost: .*`)
		}
		mutex := find1(t, section[6], `with a futex\.Mutex: +(\d+), lost (\d+)`)
		if number(t, mutex[1]) != want || mutex[2] != "0" {
			t.Errorf("wrong: %s", mutex[0])
		}
	})
	t.Run("a thread starts and joins a thread", func(t *testing.T) {
		outer := find1(t, section[7], `outer: TID (\d+) has started TID (\d+)`)
		inner := find1(t, section[7], `inner: TID (\d+) has added up 1 to 100`)
		if outer[1] == outer[2] || inner[1] != outer[2] {
			t.Errorf("wrong: %s %s", outer[0], inner[0])
		}
		find1(t, section[7], `main: +outer has joined inner: true, the sum is 5050`)
	})
	t.Run("a pool uses one thread again", func(t *testing.T) {
		m := find1(t, section[8], `TIDs of three threads by Start: +\[(\d+) (\d+) (\d+)\]`)
		if m[1] == m[2] || m[2] == m[3] || m[1] == m[3] {
			t.Errorf("wrong: %s", m[0])
		}
		m = find1(t, section[8], `TIDs of three runs on a pool's thread: +\[(\d+) (\d+) (\d+)\]`)
		if m[1] != m[2] || m[2] != m[3] {
			t.Errorf("wrong: %s", m[0])
		}
	})
	t.Run("misuse is an error of its own", func(t *testing.T) {
		for what, err := range map[string]error{
			`Join a second time`:      lwp.ErrJoined,
			`Join of the zero Thread`: lwp.ErrNoThread,
			`a thread joins itself`:   lwp.ErrSelf,
			`Start of a nil function`: lwp.ErrNilFunc,
			`a stack of 1 TiB`:        lwp.ErrStackSize,
		} {
			find1(t, section[9], what+`: +`+regexp.QuoteMeta(err.Error()))
		}
		find1(t, section[9], `a CPU that is not there: +lwp: sched_setaffinity: .*`)
		find1(t, section[9], `.* errors\.Is\(err, syscall\.EINVAL\) is true`)
	})
	t.Run("fibers take turns on one thread", func(t *testing.T) {
		var order string
		tids := map[string]bool{}
		for _, m := range find(t, section[10], `fiber (\w): turn (\d), on TID (\d+)`, 6) {
			order += m[1] + m[2] + " "
			tids[m[3]] = true
		}
		if order != "a1 b1 c1 a2 b2 c2 " || len(tids) != 1 || tids[pid] {
			t.Errorf("order %s on TIDs %v", order, slices.Collect(maps.Keys(tids)))
		}
		m := find1(t, section[10], `entries of /proc/self/task: (\d+), and (\d+) with 10000 fibers more`)
		if d := number(t, m[2]) - number(t, m[1]); d < -4 || d > 4 { // the runtime's own, and threads that have just ended
			t.Errorf("wrong: %s", m[0])
		}
	})
	t.Run("five ways are timed", func(t *testing.T) {
		find1(t, section[11], `lwp +Start, Join +\d+\.\d{3} +1\.0000`)
		for _, way := range []string{"pool +StartAttr with a Pool, Join", "fiber +sched.Go, Join on a fiber", "goroutine +go, WaitGroup.Wait", "locked +the same, .*"} {
			m := find1(t, section[11], way+` +(\d+\.\d{3}) +(\d+\.\d{4})`)
			if us, err := strconv.ParseFloat(m[1], 64); err != nil || us == 0 {
				t.Errorf("%s: a time of %s us", way, m[1])
			}
		}
	})
}

// What the READMEs say of the examples is what the examples are.
func TestReadmesAreUpToDate(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	index := read("README.md")
	mains, err := filepath.Glob("*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatal("no examples: ", err)
	}
	for _, m := range mains {
		if dir := filepath.Dir(m); !strings.Contains(index, "]("+dir+"/main.go)") {
			t.Errorf("README.md does not list %s", dir)
		}
	}
	if linked := strings.Count(index, "/main.go)"); linked != len(mains) {
		t.Errorf("README.md lists %d examples, there are %d", linked, len(mains))
	}
	for _, name := range []string{"hello/main.go", "fibers/main.go"} {
		_, text, _ := strings.Cut(read(name), "package main\n")
		if !strings.Contains(read("../README.md"), text) {
			t.Errorf("the example in the main README.md is not %s", name)
		}
	}
}
