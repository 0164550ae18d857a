package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
)

// BenchmarkProcess: one op is to make a child process and to wait for its end.
// With GOMAXPROCS=1 all of it, the children too, is on one CPU: on several the
// kernel's choice of one for each child is most of the difference between two
// rows, or between one row and itself on another day. With rss=1Gi the maker has 1 GiB of memory touched, in small pages.
//
//   - fork, vfork, clonevm: the child returns a code that is looked at. By
//     lwp.Fork, lwp.VFork, and lwp.StartProcess with CloneVM. The runtime has a
//     handler for the SIGCHLD of each, which C has not; vforkquiet is vfork
//     whose child sends none.
//   - cfork, cvfork, cclonevm: the same from C, in a small program with one
//     thread. It does not keep children from running handlers, nor give them a
//     signal mask; the stack of cclonevm is one that is used again.
//   - spawnexec, osexec, posixspawn: a program is executed: prog=tiny is static
//     and consists of one system call, prog=true is /bin/true, and prog=none
//     does not exist, which leaves the part before the exec. osexec is
//     os.StartProcess and Wait, on which os/exec is built; posixspawn is C's.
//     None passes descriptors on, or an environment.
func BenchmarkProcess(b *testing.B) {
	compare(b, processRows("small", nil))
	free := func() {}
	defer func() { free() }()
	compare(b, processRows("1Gi", sync.OnceValue(func() (err error) {
		free, err = touch(1 << 30)
		return err
	})))
}

// processRows returns the rows for one size of the maker, which prepare gives it.
func processRows(rss string, prepare func() error) []row {
	var rows []row
	add := func(impl, prog string, body func(*testing.B) error) {
		name := "impl=" + impl
		if prog != "" {
			name += "/prog=" + prog
		}
		if prepare != nil {
			alone := body
			body = func(b *testing.B) error {
				if err := prepare(); err != nil {
					return err
				}
				b.ResetTimer()
				return alone(b)
			}
		}
		body = onItsCPUs(body)
		rows = append(rows, row{name + "/rss=" + rss, body})
	}
	suffix := map[string]string{"small": "", "1Gi": "-1g"}[rss]
	add("fork", "", fork)
	add("cfork", "", inC("process-fork"+suffix))
	add("vfork", "", func(b *testing.B) error { return vfork(b, 0) })
	add("vforkquiet", "", func(b *testing.B) error { return vfork(b, lwp.NoSignal) })
	add("cvfork", "", inC("process-vfork"+suffix))
	add("clonevm", "", cloneVM)
	add("cclonevm", "", inC("process-clonevm"+suffix))
	for _, prog := range []string{"none", "tiny", "true"} {
		add("spawnexec", prog, withProgram(prog, spawnExec))
		add("osexec", prog, withProgram(prog, osExec))
		add("posixspawn", prog, inC("process-posixspawn-"+prog+suffix))
	}
	return rows
}

// onItsCPUs confines a row to one CPU where GOMAXPROCS is 1.
func onItsCPUs(body func(*testing.B) error) func(*testing.B) error {
	return func(b *testing.B) (err error) {
		var all, one unix.CPUSet
		if err := unix.SchedGetaffinity(0, &all); err != nil {
			return err
		}
		if runtime.GOMAXPROCS(0) > 1 || all.Count() == 1 {
			return body(b)
		}
		for cpu := 0; one.Count() == 0; cpu++ {
			if all.IsSet(cpu) {
				one.Set(cpu)
			}
		}
		if err := moveAll(one); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, moveAll(all)) }()
		b.ResetTimer()
		return body(b)
	}
}

// touch takes size bytes of memory, in small pages, as the C side does.
func touch(size int) (free func(), err error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return func() {}, fmt.Errorf("mmap: %w", err)
	}
	unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	for i := 0; i < size; i += 4096 {
		mem[i] = 1
	}
	return func() { unix.Munmap(mem) }, nil
}

const childCode = 7

func seven(*counter) int { return childCode }

// waited is 1 if p ended as it should.
func waited(p lwp.Process, code int) (int, error) {
	s, err := p.Wait()
	if err != nil || s.ExitCode() != code {
		return 0, err
	}
	return 1, nil
}

func fork(b *testing.B) error {
	good := 0
	for b.Loop() {
		p, err := lwp.Fork(lwp.ProcessAttr{})
		if err != nil {
			return err
		}
		if p.IsChild() {
			lwp.ExitProcess(childCode)
		}
		n, err := waited(p, childCode)
		if err != nil {
			return err
		}
		good += n
	}
	return did(good, b.N)
}

func vfork(b *testing.B, sig syscall.Signal) error {
	var c counter
	good := 0
	for b.Loop() {
		p, err := lwp.VFork(seven, &c, lwp.ProcessAttr{ExitSignal: sig})
		if errors.Is(err, unix.EINVAL) && sig != 0 {
			return skip("no child without a signal at its end here: " + err.Error())
		}
		if err != nil {
			return err
		}
		n, err := waited(p, childCode)
		if err != nil {
			return err
		}
		good += n
	}
	return did(good, b.N)
}

func cloneVM(b *testing.B) error {
	var c counter
	good := 0
	for b.Loop() {
		p, err := lwp.StartProcess(seven, &c, lwp.ProcessAttr{Flags: lwp.CloneVM})
		if errors.Is(err, unix.EINVAL) {
			return skip("no process that shares memory here: " + err.Error())
		}
		if err != nil {
			return err
		}
		n, err := waited(p, childCode)
		if err != nil {
			return err
		}
		good += n
	}
	return did(good, b.N)
}

// withProgram looks for a program before the clock starts.
func withProgram(prog string, body func(*testing.B, string) error) func(*testing.B) error {
	return func(b *testing.B) error {
		path := map[string]string{"none": "/nonexistent", "true": "/bin/true"}[prog]
		if prog == "tiny" {
			p, err := baseline()
			if err != nil {
				return err
			}
			path = filepath.Join(p.dir, "tiny")
		}
		b.ResetTimer()
		return body(b, path)
	}
}

func spawnExec(b *testing.B, path string) error {
	good := 0
	argv, env := []string{path}, []string{}
	for b.Loop() {
		p, err := lwp.SpawnExec(path, argv, lwp.ExecAttr{Env: env})
		if path == "/nonexistent" && errors.Is(err, unix.ENOENT) {
			good++
			continue
		}
		if err != nil {
			return err
		}
		n, err := waited(p, 0)
		if err != nil {
			return err
		}
		good += n
	}
	return did(good, b.N)
}

func osExec(b *testing.B, path string) error {
	good := 0
	argv, attr := []string{path}, &os.ProcAttr{Env: []string{}}
	for b.Loop() {
		p, err := os.StartProcess(path, argv, attr)
		if path == "/nonexistent" && errors.Is(err, unix.ENOENT) {
			good++
			continue
		}
		if err != nil {
			return err
		}
		s, err := p.Wait()
		if err != nil {
			return err
		}
		if s.ExitCode() == 0 {
			good++
		}
	}
	return did(good, b.N)
}

// compileTiny makes the smallest program there is: a static one that exits.
func compileTiny(cc []string, binary string) error {
	source := map[string]string{
		"amd64": "mov $60, %eax\n xor %edi, %edi\n syscall",
		"arm64": "mov x8, #93\n mov x0, #0\n svc #0",
	}[runtime.GOARCH]
	args := append(cc[1:len(cc):len(cc)], "-nostdlib", "-static", "-no-pie", "-x", "assembler", "-o", binary, "-")
	cmd := exec.Command(cc[0], args...)
	cmd.Stdin = strings.NewReader(".globl _start\n_start:\n " + source + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cc[0], err, out)
	}
	return nil
}
