package lwp_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/tls"
)

func TestConformanceClone(t *testing.T) {
	conform(t, []caseRow{
		{"clone01", func(t *testing.T) {
			p := process(t, func(s *scene) int { s.n[0] = 1; return 0 }, shared[scene](t), lwp.ProcessAttr{})
			pid := p.PID()
			if s := ends(t, p, 0); s.PID != pid || pid <= 0 {
				t.Errorf("the wait reports %d, clone %d", s.PID, pid)
			}
		}},
		{"clone02", clone02},
		{"clone03", func(t *testing.T) {
			s := shared[scene](t)
			p := process(t, func(s *scene) int { s.note(); return 0 }, s, lwp.ProcessAttr{})
			pid := p.PID()
			ends(t, p, 0)
			if s.pid != pid {
				t.Errorf("getpid in the child gives %d, clone %d", s.pid, pid)
			}
		}},
		{"clone04", func(t *testing.T) {
			if _, err := lwp.Fork(lwp.ProcessAttr{Flags: lwp.CloneVM}); !errors.Is(err, unix.EINVAL) {
				t.Errorf("a NULL stack: %v", err)
			}
			if _, err := lwp.StartProcess(answer, &seven, lwp.ProcessAttr{Stack: []byte{}}); !errors.Is(err, unix.EINVAL) {
				t.Errorf("an empty stack: %v", err)
			}
		}},
		{"clone05", TestFlagVfork},
		{"clone06", func(t *testing.T) {
			t.Setenv("CLONE06", "seen by the child")
			env := os.Environ()
			environment = strings.Join(env, "\x00")
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				s.n[0] = strings.Index(environment, "CLONE06=seen by the child")
				return 0
			})
			if s.n[0] < 0 {
				t.Error("the child does not see the environment")
			}
			if out, _ := sh(t, "echo $CLONE06", lwp.ExecAttr{}); out != "seen by the child\n" {
				t.Errorf("the program sees %q", out)
			}
		}},
		{"clone07", func(t *testing.T) {
			for range 20 {
				ends(t, process(t, answer, &seven, lwp.ProcessAttr{}), 7)
				ends(t, process(t, answer, &seven, lwp.ProcessAttr{Flags: lwp.CloneVM}), 7)
			}
		}},
		{"clone08", func(t *testing.T) {
			t.Run("parent", TestFlagParent)
			t.Run("tids", TestFlagTIDs)
			t.Run("thread", TestFlagThread)
			t.Run("settls", TestFlagSetTLS)
			t.Run("stopped", func(t *testing.T) {
				// CLONE_STOPPED is gone: its bit makes a cgroup namespace, and nobody stops.
				p, s := lingers(t, lwp.ProcessAttr{Flags: lwp.GoneFlags()[1].Flag})
				s.dismiss(t, p)
			})
		}},
		{"clone09", func(t *testing.T) {
			needNamespaces(t)
			p, s := lingers(t, lwp.ProcessAttr{Flags: lwp.CloneNewNet})
			dev := readTrim(t, fmt.Sprintf("/proc/%d/net/dev", p.PID()))
			route := readTrim(t, fmt.Sprintf("/proc/%d/net/route", p.PID()))
			if !strings.Contains(dev, "lo:") || strings.Count(route, "\n") > 0 {
				t.Errorf("interfaces\n%s\nroutes\n%s", dev, route)
			}
			s.dismiss(t, p)
		}},
		{"clone10", func(t *testing.T) {
			key, err := tls.NewKey[int](nil)
			if err != nil {
				t.Fatal(err)
			}
			defer key.Delete()
			localKey = key
			var s scene
			lwptest.OnThread(t, func(s *scene) {
				localKey.Set(1)
				p, err := lwp.StartProcess(func(s *scene) int {
					_, before := localKey.Get()
					localKey.Set(2)
					s.n[0], _ = localKey.Get()
					if before {
						return 1
					}
					return 0
				}, s, lwp.ProcessAttr{Flags: lwp.CloneVM | lwp.CloneSetTLS})
				if err == nil {
					st, _ := p.Wait()
					s.n[1] = st.ExitCode()
				}
				s.n[2], _ = localKey.Get()
			}, &s)
			if s.n[0] != 2 || s.n[1] != 0 || s.n[2] != 1 {
				t.Errorf("child %d, exit %d, parent %d; want 2, 0, 1", s.n[0], s.n[1], s.n[2])
			}
		}},
		{"clone11", TestNamespacesWithoutPrivilege},
		{"clone301", clone301},
		{"clone302", clone302},
		{"clone303", TestFlagIntoCgroup},
		{"clone304", func(t *testing.T) {
			lwptest.NeedRoot(t)
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				asNobody()
				_, err := lwp.StartProcess(answer, &seven, lwp.ProcessAttr{SetTID: setTIDs[:]})
				s.errno[0] = errnoOf(err)
				return 0
			})
			s.expect(t, 0, "set_tid", unix.EPERM)
		}},
	})
}

var (
	environment string
	localKey    tls.Key[int]
)

// allOfIt is what clone02's child changes.
type allOfIt struct {
	scene
	sa [4]uint64
}

var theMemory int

func changeAll(w *allOfIt) int {
	theMemory = 2
	w.call(0, unix.SYS_CLOSE, uintptr(w.fd[0]), 0, 0)
	w.call(1, unix.SYS_CHDIR, uintptr(unsafe.Pointer(&rootDir[0])), 0, 0)
	w.call(2, unix.SYS_UMASK, 0o27, 0, 0)
	w.sa[0] = 1 // SIG_IGN
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGUSR2), uintptr(unsafe.Pointer(&w.sa)), 0, 8, 0, 0)
	w.errno[3] = uint32(errno)
	w.call(4, unix.SYS_READ, uintptr(w.fd[1]), uintptr(unsafe.Pointer(&w.text)), 3)
	return 0
}

var rootDir = []byte("/\x00")

func clone02(t *testing.T) {
	if lwptest.MustPass(t, nil) {
		return
	}
	pinned(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", []byte("abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	ignored := func() bool {
		var sa [4]uint64
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGUSR2), 0, uintptr(unsafe.Pointer(&sa)), 8, 0, 0)
		return sa[0] == 1
	}
	const all = lwp.CloneVM | lwp.CloneFS | lwp.CloneFiles | lwp.CloneSighand
	for _, flags := range []lwp.Flags{0, all} {
		t.Chdir(dir)
		old := syscall.Umask(0o22)
		defer syscall.Umask(old)
		w := shared[allOfIt](t)
		theMemory = 1
		w.fd[0], _ = unix.Dup(open(t, "file"))
		w.fd[1] = open(t, "file")
		ends(t, process(t, changeAll, w, lwp.ProcessAttr{Flags: flags}), 0)
		wd, _ := os.Readlink("/proc/self/cwd")
		mask := syscall.Umask(0o22)
		_, err := unix.FcntlInt(uintptr(w.fd[0]), unix.F_GETFD, 0)
		offset, _ := unix.Seek(w.fd[1], 0, 1)
		if want := flags != 0; (theMemory == 2) != want || (err == unix.EBADF) != want || (wd == "/") != want ||
			(mask == 0o27) != want || ignored() != want {
			t.Errorf("%v: memory %d, descriptor %v, directory %s, umask %#o, ignored %v", flags, theMemory, err, wd, mask, ignored())
		}
		if offset != 3 { // of an open file, which either way is one
			t.Errorf("%v: the offset is %d", flags, offset)
		}
		if err == nil {
			unix.Close(w.fd[0])
		}
	}
}

func clone301(t *testing.T) {
	s := shared[ids](t)
	p := process(t, linger, &s.scene, lwp.ProcessAttr{
		Flags:     lwp.ClonePIDFD | lwp.CloneParentSetTID | lwp.CloneChildSetTID,
		ParentTID: &s.parent, ChildTID: &s.child, ExitSignal: unix.SIGUSR2})
	s.up.pass()
	if int(s.parent) != p.PID() || int(s.child) != p.PID() {
		t.Errorf("parent_tid %d, child_tid %d, pid %d", s.parent, s.child, p.PID())
	}
	fd, err := p.PIDFD()
	if err != nil {
		t.Fatal(err)
	}
	errs(t, "pidfd_send_signal", unix.PidfdSendSignal(fd, 0, nil, 0), 0)
	got := readTrim(t, fmt.Sprintf("/proc/%d/stat", p.PID()))
	if f := strings.Fields(got[strings.LastIndex(got, ")"):]); f[36] != fmt.Sprint(int(unix.SIGUSR2)) {
		t.Errorf("exit signal %s", f[36])
	}
	s.dismiss(t, p)
}

// bare makes a child by the bare clone3, with memory of which size bytes count,
// and collects it.
func bare(t testing.TB, args unsafe.Pointer, size uintptr) error {
	t.Helper()
	a := asm.ProcessArgs{Trap: unix.SYS_CLONE3, A0: uintptr(args), A1: size}
	pid, errno := asm.CloneProcess(&a)
	runtime.KeepAlive(args)
	if errno != 0 {
		return syscall.Errno(errno)
	}
	for {
		if _, err := unix.Wait4(int(pid), nil, unix.WALL, nil); err != unix.EINTR {
			return err
		}
	}
}

const chld = uint64(unix.SIGCHLD)

func clone302(t *testing.T) {
	size := unsafe.Sizeof(asm.Clone3Args{})
	errs(t, "bad address", bare(t, unsafe.Pointer(uintptrTo(1)), size), unix.EFAULT)
	page := shared[[4096 * 2]byte](t)
	good := (*asm.Clone3Args)(unsafe.Pointer(page))
	good.ExitSignal = chld
	errs(t, "size 1", bare(t, unsafe.Pointer(good), 1), unix.EINVAL)
	errs(t, "size of two pages", bare(t, unsafe.Pointer(good), 8192), unix.E2BIG)
	for _, c := range []struct {
		name  string
		args  asm.Clone3Args
		errno syscall.Errno
	}{
		{"CLONE_SIGHAND alone", asm.Clone3Args{Flags: uint64(lwp.CloneSighand), ExitSignal: chld}, unix.EINVAL},
		{"CLONE_THREAD alone", asm.Clone3Args{Flags: uint64(lwp.CloneThread), ExitSignal: 0}, unix.EINVAL},
		{"CLONE_FS and NEWNS", asm.Clone3Args{Flags: uint64(lwp.CloneFS | lwp.CloneNewNS), ExitSignal: chld}, unix.EINVAL},
		{"no flag", asm.Clone3Args{Flags: 1 << 40, ExitSignal: chld}, unix.EINVAL},
		{"pidfd", asm.Clone3Args{Flags: uint64(lwp.ClonePIDFD), PIDFD: 1, ExitSignal: chld}, unix.EFAULT},
		{"exit signal", asm.Clone3Args{ExitSignal: 1 << 20}, unix.EINVAL},
		{"stack alone", asm.Clone3Args{Stack: uint64(ptr(page)), ExitSignal: chld}, unix.EINVAL},
		{"stack size alone", asm.Clone3Args{StackSize: 4096, ExitSignal: chld}, unix.EINVAL},
	} {
		*good = c.args
		errs(t, c.name, bare(t, unsafe.Pointer(good), size), c.errno)
	}
}

// uintptrTo is an address as a pointer, for the kernel to refuse.
func uintptrTo(a uintptr) *byte { return *(**byte)(unsafe.Pointer(&a)) }

func TestConformanceCloneSelftests(t *testing.T) {
	conform(t, []caseRow{
		{"clone3", clone3Sizes},
		{"clone3_set_tid", clone3SetTID},
		{"clone3_clear_sighand", func(t *testing.T) {
			t.Run("reset", TestFlagClearSighand)
			t.Run("ignored stay", TestSpawnExecSignalsAndSession)
			errs(t, "with CLONE_SIGHAND", bareFlags(t, lwp.CloneVM|lwp.CloneSighand|lwp.CloneClearSighand), unix.EINVAL)
		}},
		{"clone3_cap_checkpoint_restore", func(t *testing.T) {
			lwptest.NeedCap(t, unix.CAP_CHECKPOINT_RESTORE)
			p := process(t, answer, &seven, lwp.ProcessAttr{})
			free := p.PID()
			ends(t, p, 7)
			setTIDs[0] = int32(free)
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				// Only the one capability, then none.
				for i, c := range []uint32{1 << (unix.CAP_CHECKPOINT_RESTORE - 32), 0} {
					header := [2]uint32{unix.LINUX_CAPABILITY_VERSION_3}
					sets := [6]uint32{0, 0, 0, c, c, 0}
					unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets)), 0)
					p, err := lwp.StartProcess(answer, &seven, lwp.ProcessAttr{SetTID: setTIDs[:]})
					s.errno[i] = errnoOf(err)
					if err == nil {
						p.Wait()
					}
				}
				return 0
			})
			s.expect(t, 0, "with CAP_CHECKPOINT_RESTORE", 0)
			s.expect(t, 1, "without", unix.EPERM)
		}},
	})
}

func bareFlags(t testing.TB, flags lwp.Flags) error {
	return bare(t, unsafe.Pointer(&asm.Clone3Args{Flags: uint64(flags), ExitSignal: chld}), unsafe.Sizeof(asm.Clone3Args{}))
}

func clone3Sizes(t *testing.T) {
	const first, page = 64, 4096 // bytes of the first version
	mem := shared[[3 * page]byte](t)
	args := (*asm.Clone3Args)(unsafe.Pointer(mem))
	size := unsafe.Sizeof(*args)
	check := func(where string, flags lwp.Flags) {
		for _, c := range []struct {
			name   string
			size   uintptr
			tail   bool // a byte set behind the structure
			signal uint64
			errno  syscall.Errno
		}{
			{"first version", first, false, chld, 0},
			{"today's", size, false, chld, 0},
			{"smaller", first - 8, false, chld, unix.EINVAL},
			{"larger, zero", size + 8, false, chld, 0},
			{"larger, not zero", size + 8, true, chld, unix.E2BIG},
			{"a page", page, false, chld, 0},
			{"beyond a page", page + 8, false, chld, unix.E2BIG},
			{"high bits of the signal", size, false, 0xbadc0ded00000000, unix.EINVAL},
			{"negative signal", size, false, 0xf000000000000000, unix.EINVAL},
			{"signal outside CSIGNAL", size, false, 0x100, unix.EINVAL},
			{"signal above NSIG", size, false, 65, unix.EINVAL},
		} {
			*mem = [3 * page]byte{}
			args.Flags, args.ExitSignal = uint64(flags), c.signal
			if c.tail {
				mem[size] = 1
			}
			errs(t, where+c.name, bare(t, unsafe.Pointer(args), c.size), c.errno)
		}
	}
	check("", 0)
	if isRoot() {
		check("in a PID namespace: ", lwp.CloneNewPID)
	}
}

func clone3SetTID(t *testing.T) {
	needNamespaces(t)
	start := func(flags lwp.Flags, tids ...int32) error {
		a := asm.Clone3Args{Flags: uint64(flags), ExitSignal: chld, SetTIDSize: uint64(len(tids))}
		mem := shared[[64]int32](t)
		copy(mem[:], tids)
		if len(tids) > 0 {
			a.SetTID = uint64(ptr(mem))
		}
		return bare(t, unsafe.Pointer(&a), unsafe.Sizeof(a))
	}
	var pidMax int32
	fmt.Sscan(readTrim(t, "/proc/sys/kernel/pid_max"), &pidMax)
	errs(t, "two IDs, one namespace", start(0, 5, 5), unix.EINVAL)
	errs(t, "33 IDs", start(0, make([]int32, 33)...), unix.EINVAL)
	errs(t, "ID 0", start(0, 0), unix.EINVAL)
	errs(t, "ID -1", start(0, -1), unix.EINVAL)
	errs(t, "ID pid_max", start(0, pidMax), unix.EINVAL)
	errs(t, "ID 1", start(0, 1), unix.EEXIST)
	errs(t, "ID 1 in a new namespace", start(lwp.CloneNewPID, 1), 0)
	errs(t, "ID 2 for the first of a namespace", start(lwp.CloneNewPID, 2), unix.EINVAL)
	t.Run("free again", TestSetTID)

	// Three nested namespaces: the first of the second, in the second, and in this.
	var free [3]int32
	for i := range free {
		p := process(t, answer, &seven, lwp.ProcessAttr{})
		free[i] = int32(p.PID())
		ends(t, p, 7)
	}
	nestedTIDs = [3]int32{1, 43, free[0]}
	s := shared[scene](t)
	p := process(t, func(s *scene) int {
		q, err := lwp.StartProcess(linger, s, lwp.ProcessAttr{Flags: lwp.CloneNewPID, SetTID: nestedTIDs[:]})
		if err != nil {
			return 1
		}
		s.n[0] = q.PID()
		if st, err := q.Wait(); err != nil || st.ExitCode() != 0 {
			return 2
		}
		return 0
	}, s, lwp.ProcessAttr{Flags: lwp.CloneNewPID})
	s.up.pass()
	status := readTrim(t, fmt.Sprintf("/proc/%d/status", free[0]))
	if want := fmt.Sprintf("NSpid:\t%d\t43\t1", free[0]); !strings.Contains(status, want) {
		t.Errorf("no %q in\n%s", want, status)
	}
	s.leave.open()
	ends(t, p, 0)
}

var nestedTIDs [3]int32
