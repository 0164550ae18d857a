package bench

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

//go:embed testdata/baseline.c
var baselineSource string

//go:embed testdata/waiting.c
var waitingSource string

//go:embed testdata/fcontext.c
var fcontextSource string

// A cProgram is a running C side. One process serves all benchmarks of a
// run, so that what is measured starts warm, as it does on the Go side.
type cProgram struct {
	mu  sync.Mutex
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
	dir string
}

// cResult is what the C program reports of n operations.
type cResult struct {
	ns    int64 // of the operations alone
	count int64 // operations that it has counted
	turns int64 // of a contended lock
	more  [4]int64
}

var (
	running  []*cProgram
	baseline = sync.OnceValues(func() (*cProgram, error) { return startC(baselineSource+waitingSource, "", "") })
	fcontext = sync.OnceValues(func() (*cProgram, error) {
		return startC(fcontextSource, "-lboost_context", "no Boost.Context (libboost-context-dev)")
	})
)

// inC is the body of a row that the C program measures. The result is the
// program's own figure, without its start and the way to it and back.
func inC(op string) func(*testing.B) error {
	return func(b *testing.B) error {
		_, err := measureC(b, baseline, op)
		return err
	}
}

// inFcontext is inC of the program that uses Boost.Context.
func inFcontext(op string) func(*testing.B) error {
	return func(b *testing.B) error {
		_, err := measureC(b, fcontext, op)
		return err
	}
}

func measureC(b *testing.B, program func() (*cProgram, error), op string) (r cResult, err error) {
	p, err := program()
	if err != nil {
		return r, err
	}
	b.ResetTimer()
	r, err = p.run(op, b.N)
	b.StopTimer()
	if err != nil {
		return r, err
	}
	b.ReportMetric(float64(r.ns)/float64(b.N), "ns/op")
	if r.turns > 0 {
		b.ReportMetric(float64(r.count)/float64(r.turns), "ops/turn")
	}
	return r, did(r.count, int64(b.N))
}

func (p *cProgram) run(op string, n int) (r cResult, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err = fmt.Fprintln(p.in, op, n); err != nil {
		return r, fmt.Errorf("C program: %w", err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return r, fmt.Errorf("C program: %w", err)
	}
	m := &r.more
	if _, err = fmt.Sscan(line, &r.ns, &r.count, &r.turns, &m[0], &m[1], &m[2], &m[3]); err != nil {
		return r, fmt.Errorf("C program: %s", strings.TrimSpace(line))
	}
	return r, nil
}

// startC compiles a program, with a library if it names one, and starts it.
// Without that library its rows are skipped, for the reason given.
func startC(source, library, lacking string) (p *cProgram, err error) {
	cc, err := findCC()
	if err != nil {
		return nil, err
	}
	p = &cProgram{}
	if p.dir, err = os.MkdirTemp("", "lwprt-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(p.dir)
			p = nil
		}
	}()
	binary := filepath.Join(p.dir, "program")
	if err = compile(cc, source, binary, library); err != nil {
		const empty = "#include <pthread.h>\nint main(void) { return 0; }\n"
		if compile(cc, empty, binary, "") != nil {
			err = skip("the C compiler " + cc[0] + " lacks headers or libraries")
		} else if library != "" && compile(cc, empty, binary, library) != nil {
			err = skip(lacking)
		}
		return p, err
	}
	p.cmd = exec.Command(binary)
	p.cmd.Stderr = os.Stderr
	p.cmd.Env = append(os.Environ(), "PROCESS_PROGRAM_tiny="+filepath.Join(p.dir, "tiny"))
	if err = compileTiny(cc, filepath.Join(p.dir, "tiny")); err != nil {
		return p, err
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return p, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return p, err
	}
	p.out = bufio.NewReader(out)
	if err = p.cmd.Start(); err != nil {
		return p, err
	}
	running = append(running, p)
	return p, nil
}

func stopC() {
	for _, p := range running {
		p.in.Close()
		p.cmd.Wait()
		os.RemoveAll(p.dir)
	}
}

// findCC returns the command of a C compiler that makes programs for the
// architecture of this one, or a skip. Under an emulator the compiler is often
// the machine's own, whose programs would run unemulated.
func findCC() ([]string, error) {
	candidates := [][]string{{"cc"}, {"gcc"}, {"clang"}}
	if env := strings.Fields(os.Getenv("CC")); len(env) > 0 {
		candidates = [][]string{env}
	}
	want := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	why := skip("no C compiler (cc, gcc, clang, or $CC)")
	for _, c := range candidates {
		if _, err := exec.LookPath(c[0]); err != nil {
			continue
		}
		out, err := exec.Command(c[0], append(c[1:len(c):len(c)], "-dumpmachine")...).Output()
		target, _, _ := strings.Cut(strings.TrimSpace(string(out)), "-")
		switch {
		case err != nil:
			why = skip(fmt.Sprintf("the C compiler %s does not say what it compiles for: %v", c[0], err))
		case target != want && !(target == "amd64" && want == "x86_64") && !(target == "arm64" && want == "aarch64"):
			why = skip(fmt.Sprintf("the C compiler %s compiles for %s, not for %s", c[0], target, want))
		default:
			return c, nil
		}
	}
	return nil, why
}

func compile(cc []string, source, binary, library string) error {
	args := append(cc[1:len(cc):len(cc)], "-O2", "-pthread", "-o", binary, "-x", "c", "-", "-x", "none")
	if library != "" {
		args = append(args, library)
	}
	cmd := exec.Command(cc[0], args...)
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cc[0], err, out)
	}
	return nil
}

// TestBaselineReportsItsErrors fails if a misspelt operation would hang the
// benchmarks, or be taken for one that costs nothing.
func TestBaselineReportsItsErrors(t *testing.T) {
	p, err := baseline()
	if reason, ok := skipped(err); ok {
		t.Skip(reason)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.run("no-such-operation", 1); err == nil {
		t.Errorf("got %+v, want an error", r)
	}
	if r, err := p.run("syscall", 1); err != nil || r.count != 1 {
		t.Errorf("after an error: %+v, %v", r, err)
	}
}

// TestNoCompilerIsASkip fails if a machine without a C compiler, or with one
// for another architecture, could not run the other rows.
func TestNoCompilerIsASkip(t *testing.T) {
	t.Setenv("CC", "no-such-compiler")
	_, err := findCC()
	if _, ok := skipped(err); !ok {
		t.Errorf("no compiler: got %v, want a skip", err)
	}
	if _, err := startC(fcontextSource, "-lno_such_library", "no library"); err == nil {
		t.Error("a program without its library: no error")
	}
	other := filepath.Join(t.TempDir(), "cc")
	if err := os.WriteFile(other, []byte("#!/bin/sh\necho m68k-linux-gnu\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CC", other)
	_, err = findCC()
	if _, ok := skipped(err); !ok {
		t.Errorf("compiler for another architecture: got %v, want a skip", err)
	}
}
