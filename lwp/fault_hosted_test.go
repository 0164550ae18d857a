package lwp_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// Hosted code is to be as it is in a program without threads: each of these
// tests runs without them, and with some that run, sleep and have faulted.

func bothWays(t *testing.T, f func(t *testing.T, threads bool)) {
	t.Run("without threads", func(t *testing.T) { f(t, false) })
	t.Run("with threads", func(t *testing.T) { f(t, true) })
}

// population starts threads, which run until the test ends.
func population(t *testing.T) []lwp.Thread {
	t.Helper()
	fault(t, deaths[0], &storm{}, lwp.Attr{})
	stop := new(lwptest.Flag)
	var threads []lwp.Thread
	for range 4 {
		th, err := lwp.Start(func(stop *lwptest.Flag) { stop.Wait() }, stop)
		if err != nil {
			t.Fatal(err)
		}
		threads = append(threads, th)
	}
	busy, err := lwp.Start(func(stop *lwptest.Flag) {
		for !stop.Up() {
			lwp.Yield()
		}
	}, stop)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop.Raise()
		for _, th := range append(threads, busy) {
			if err := th.Join(); err != nil {
				t.Error(err)
			}
		}
	})
	return threads
}

func TestHostedNilDereferenceIsRecovered(t *testing.T) {
	lwptest.SkipRace(t)
	population(t)
	for range 1000 {
		err := recovered(func() { escInt = &[]int{(*given)(at(0)).n}[0] })
		if e, ok := err.(runtime.Error); !ok || !strings.Contains(e.Error(), "nil pointer dereference") {
			t.Fatalf("recovered %v", err)
		}
	}
	if err := recovered(func() { escInts = make([]int, minus) }); err == nil {
		t.Error("a panic of the runtime was not one")
	}
}

var minus = -1

func recovered(f func()) (err any) {
	defer func() { err = recover() }()
	f()
	return nil
}

func TestHostedSetPanicOnFault(t *testing.T) {
	lwptest.SkipRace(t)
	population(t)
	done := make(chan any)
	go func() {
		debug.SetPanicOnFault(true)
		done <- recovered(func() { *(*int)(at(0x7654321000)) = 1 })
	}()
	err := <-done
	if e, ok := err.(interface{ Addr() uintptr }); !ok || e.Addr() != 0x7654321000 {
		t.Errorf("recovered %v", err)
	}
}

func TestHostedPanicsAreAsBefore(t *testing.T) {
	lwptest.SkipRace(t)
	for name, c := range map[string]struct {
		do   func()
		want string
	}{
		"nil":  {func() { *(*int)(at(0)) = 1 }, "panic: runtime error: invalid memory address or nil pointer dereference\n[signal SIGSEGV: segmentation violation code="},
		"wild": {func() { *(*int)(at(0x7654321000)) = 1 }, "unexpected fault address 0x7654321000\nfatal error: fault\n[signal SIGSEGV: segmentation violation code="},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, threads bool) {
				if lwptest.InChild() {
					if threads {
						population(t)
					}
					// Not under the test's own recover, and when this goroutine sleeps.
					time.AfterFunc(20*time.Millisecond, c.do)
					time.Sleep(time.Minute)
					return
				}
				out, state := lwptest.Child(t, nil)
				if state.ExitCode() != 2 || !strings.Contains(out, c.want) || !strings.Contains(out, "fault_hosted_test.go") {
					t.Errorf("ended with %v and\n%s", state, out)
				}
			})
		})
	}
}

// sendSelf has the calling thread get sig as if the kernel had chosen it for
// what a process of that ID has sent by kill(2).
func sendSelf(sig, code int32, from int32) {
	info := struct {
		signo, errno, code, _ int32
		pid, uid              int32
		_                     [13]uint64
	}{signo: sig, code: code, pid: from}
	pid, _, _ := unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	tid, _, _ := unix.RawSyscall(unix.SYS_GETTID, 0, 0, 0)
	unix.RawSyscall6(unix.SYS_RT_TGSIGQUEUEINFO, pid, tid, uintptr(sig), uintptr(unsafe.Pointer(&info)), 0, 0)
}

var faultSignals = []syscall.Signal{
	unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS,
}

// ways to send a signal to the process, or to one of its threads. None has
// another goroutine that runs when the signal comes: the runtime's trace of all
// goroutines, which a fatal signal prints, does not wait for long for those
// that run, and can crash where the stack changes that it walks.
var ways = map[string]func(t *testing.T, threads []lwp.Thread, sig syscall.Signal){
	"from outside": func(t *testing.T, _ []lwp.Thread, sig syscall.Signal) {
		name := strings.TrimPrefix(unix.SignalName(sig), "SIG")
		if out, err := exec.Command("sh", "-c", fmt.Sprintf("kill -0 %d", os.Getpid())).CombinedOutput(); err != nil {
			t.Skipf("kill: %v %s", err, out)
		}
		if err := exec.Command("sh", "-c", fmt.Sprintf("sleep 0.05; kill -%s %d", name, os.Getpid())).Start(); err != nil {
			t.Fatal(err)
		}
	},
	"from inside": func(t *testing.T, _ []lwp.Thread, sig syscall.Signal) {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	},
	"to a thread": func(t *testing.T, threads []lwp.Thread, sig syscall.Signal) {
		tid := os.Getpid()
		if len(threads) > 0 {
			tid = threads[0].TID()
		}
		if err := unix.Tgkill(os.Getpid(), tid, sig); err != nil {
			t.Fatal(err)
		}
	},
	"chosen by the kernel": func(t *testing.T, threads []lwp.Thread, sig syscall.Signal) {
		if len(threads) == 0 {
			unix.Kill(os.Getpid(), sig)
			return
		}
		_, err := lwp.StartAttr(func(sig *syscall.Signal) { sendSelf(int32(*sig), 0, 1) }, &sig, lwp.Attr{Detached: true})
		if err != nil {
			t.Fatal(err)
		}
	},
}

// A signal that was sent ends a Go program with the signal's name and status 2.
func TestHostedSentSignalsEndTheProgram(t *testing.T) {
	lwptest.SkipRace(t)
	signals := append([]syscall.Signal{unix.SIGABRT, unix.SIGQUIT}, faultSignals...)
	switch {
	case lwptest.Emulated():
		signals = signals[:2] // qemu-user needs the others for itself, and can die of one
	case testing.Short():
		signals = signals[:4]
	}
	for way, send := range ways {
		t.Run(way, func(t *testing.T) {
			for _, sig := range signals {
				if (way == "to a thread" || way == "chosen by the kernel") && (sig == unix.SIGABRT || sig == unix.SIGQUIT) {
					continue // blocked there: it is not chosen, and nothing happens
				}
				t.Run(unix.SignalName(sig), func(t *testing.T) {
					var messages [2]string
					bothWays(t, func(t *testing.T, with bool) {
						if lwptest.InChild() {
							var threads []lwp.Thread
							if with {
								threads = population(t)
							}
							time.Sleep(20 * time.Millisecond) // goroutines that have done their work end
							send(t, threads, sig)
							time.Sleep(time.Minute)
							return
						}
						out, state := lwptest.Child(t, nil)
						if strings.Contains(out, "--- SKIP") {
							t.Skip(out)
						}
						_, message, _ := strings.Cut(out, unix.SignalName(sig)+": ")
						message, _, _ = strings.Cut(message, "\n\n")
						message = regexp.MustCompile(`0x[0-9a-f]+| m=\d+`).ReplaceAllString(message, "?")
						if state.ExitCode() != 2 || message == "" {
							t.Fatalf("ended with %v and\n%s", state, out)
						}
						n := 0
						if with {
							n = 1
						}
						messages[n] = message
					})
					if !t.Failed() && messages[1] != "" && messages[0] != messages[1] {
						t.Errorf("without threads:\n%s\nwith threads:\n%s", messages[0], messages[1])
					}
				})
			}
		})
	}
}

func TestHostedNotifyGetsSentSignals(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "safe way to get a SIGSEGV from kill(2)")
	for way, send := range ways {
		t.Run(way, func(t *testing.T) {
			if lwptest.MustPass(t, nil) {
				return
			}
			threads := population(t)
			ch := make(chan os.Signal, 10)
			for _, sig := range faultSignals {
				signal.Notify(ch, sig)
				for range lwptest.Count(20, 5) {
					send(t, threads, sig)
					select {
					case got := <-ch:
						if got != sig {
							t.Fatalf("%v came, %v was sent", got, sig)
						}
					case <-time.After(time.Minute):
						t.Fatalf("%v did not come", sig)
					}
				}
			}
			alive(t)
		})
	}
}

// Signals come while threads fault, so that some arrive in the handler.
func TestHostedSignalsDuringFaults(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "safe way to get a SIGSEGV from kill(2)")
	if lwptest.MustPass(t, nil) {
		return
	}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGSEGV, unix.SIGBUS, unix.SIGUSR1)
	var stop atomic.Bool
	sent := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			unix.Kill(os.Getpid(), []syscall.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGUSR1}[n%3])
			select {
			case <-ch:
			default:
			}
		}
		sent <- n
	}()
	s := &storm{depth: 1}
	for i := range lwptest.Count(20_000, 2_000) {
		fault(t, deaths[i%len(deaths)], s, lwp.Attr{})
	}
	stop.Store(true)
	t.Log(<-sent, "signals")
	alive(t)
}

func TestHostedProfileOfAProgramWithThreads(t *testing.T) {
	lwptest.SkipRace(t)
	threads := population(t)
	var profile bytes.Buffer
	if err := pprof.StartCPUProfile(&profile); err != nil {
		t.Skip(err)
	}
	s := &storm{depth: 1}
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		fault(t, deaths[int(s.none.count())%len(deaths)], s, lwp.Attr{})
		for i := range 1000 {
			escInts = make([]int, i)
		}
	}
	pprof.StopCPUProfile()
	if profile.Len() < 100 {
		t.Errorf("a profile of %d bytes", profile.Len())
	}
	runtime.KeepAlive(threads)
	alive(t)
}

var counter atomic.Int64

func (*storm) count() int64 { return counter.Add(1) }

// The process ends as it does without a fault.
func TestHostedExitStatusAfterFaults(t *testing.T) {
	lwptest.SkipRace(t)
	if lwptest.InChild() {
		fault(t, deaths[3], &storm{}, lwp.Attr{})
		os.Exit(7)
	}
	if out, state := lwptest.Child(t, nil); state.ExitCode() != 7 {
		t.Errorf("ended with %v and\n%s", state, out)
	}
}

// A program with C code, whose first argument says what it does.
const cgoProgram = `package main

/*
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void handler(int sig, siginfo_t *info, void *ctx) {
	const char said[] = "the C handler\n";
	if (write(1, said, sizeof said - 1) < 0 || info->si_signo != sig || ctx == NULL)
		_exit(8);
	_exit(7);
}

static void install(void) {
	struct sigaction sa;
	memset(&sa, 0, sizeof sa);
	sa.sa_sigaction = handler;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigfillset(&sa.sa_mask);
	sigaction(SIGSEGV, &sa, NULL);
}

__attribute__((constructor)) static void early(void) {
	if (getenv("EARLY") != NULL)
		install();
}

static int crash(void) { return *(volatile int *)8; }
*/
import "C"

import (
	"fmt"
	"os"

	"lwprt/lwp"
)

type box struct{ p *int }

func recovered() (err any) {
	defer func() { err = recover() }()
	*(*box)(nil).p = 1
	return nil
}

func main() {
	if os.Getenv("LATE") != "" {
		C.install()
	}
	if os.Getenv("THREADS") != "" {
		for range 3 {
			t, err := lwp.Start(func(b *box) { *b.p = 1 }, new(box))
			if err != nil {
				panic(err)
			}
			f, ok := t.Join().(*lwp.Fault)
			fmt.Println("contained:", ok && f.Reason == lwp.NilDereference)
		}
	}
	if os.Getenv("LATE") == "" { // C has taken the signal from Go
		fmt.Println("recovered:", recovered())
	}
	C.crash()
}
`

func TestHostedFaultInCCodeIsAsBefore(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "C compiler for itself")
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile("../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(mod), "module lwprt\n", "module cprogram\n", 1) +
		"\nrequire lwprt v0.0.0\nreplace lwprt => " + root + "\n"
	for name, s := range map[string]string{"go.mod": text, "go.sum": string(sum), "main.go": cgoProgram} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", "program", ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=1", "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, handler := range []string{"", "EARLY", "LATE"} {
		t.Run("handler="+handler, func(t *testing.T) {
			bothWays(t, func(t *testing.T, threads bool) {
				out, state := lwptest.Exec(t, func(c *exec.Cmd) {
					c.Env = append(c.Env, handler+"=1")
					if threads {
						c.Env = append(c.Env, "THREADS=1")
					}
				}, filepath.Join(dir, "program"))
				wants := []string{"the C handler"}
				status := 7
				if handler == "" {
					wants = []string{"SIGSEGV: segmentation violation", "signal arrived during cgo execution"}
					status = 2
				}
				if handler != "LATE" {
					wants = append(wants, "recovered: runtime error: invalid memory address or nil pointer dereference")
				}
				if threads {
					wants = append(wants, "contained: true\ncontained: true\ncontained: true\n")
				}
				if state.ExitCode() != status {
					t.Errorf("ended with %v, not status %d, and\n%s", state, status, out)
				}
				for _, want := range wants {
					if !strings.Contains(out, want) {
						t.Errorf("does not say %q:\n%s", want, out)
					}
				}
			})
		})
	}
}
