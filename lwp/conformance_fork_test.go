package lwp_test

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// forks makes a child by Fork, which runs fn, and returns its handle.
func forks(t testing.TB, fn func(*scene) int, s *scene) lwp.Process {
	t.Helper()
	p, err := lwp.Fork(lwp.ProcessAttr{})
	if err != nil {
		t.Fatal("fork: ", err)
	}
	if p.IsChild() {
		lwp.ExitProcess(fn(s))
	}
	return p
}

func TestConformanceFork(t *testing.T) {
	conform(t, []caseRow{
		{"fork01", func(t *testing.T) {
			for _, code := range []int{0, 1, 23, 255} {
				s := shared[scene](t)
				s.n[0] = code
				p := forks(t, func(s *scene) int { s.note(); return s.n[0] }, s)
				pid := p.PID()
				if st := ends(t, p, code); st.PID != pid || s.pid != pid || s.ppid != os.Getpid() {
					t.Errorf("pid %d, waited for %d; the child is %d of %d", pid, st.PID, s.pid, s.ppid)
				}
			}
		}},
		{"fork03", func(t *testing.T) {
			s := shared[scene](t)
			p := forks(t, func(s *scene) int {
				n := uint64(1)
				for i := range 3_000_000 {
					n = n*6364136223846793005 + uint64(i)
				}
				var deep func(int) int
				deep = func(k int) int {
					if k == 0 {
						return 0
					}
					return deep(k-1) + 1
				}
				s.n[0] = int(n >> 1)
				return deep(200) - 200
			}, s)
			ends(t, p, 0)
			if s.n[0] == 0 {
				t.Error("no work was done")
			}
		}},
		{"fork04", func(t *testing.T) {
			text := []byte("FORK04=parent")
			envCopy = text
			s := shared[scene](t)
			p := forks(t, func(s *scene) int {
				s.n[0] = copy(s.text[:], envCopy)
				copy(envCopy, "FORK04=childs")
				s.n[1] = int(envCopy[7])
				return 0
			}, s)
			ends(t, p, 0)
			if string(s.text[:s.n[0]]) != "FORK04=parent" || s.n[1] != 'c' || string(text) != "FORK04=parent" {
				t.Errorf("the child saw %q, wrote %c, the parent has %q", s.text[:s.n[0]], s.n[1], text)
			}
		}},
		{"fork07", func(t *testing.T) {
			// 50 children each read one byte of one open file: all of them, once.
			name := t.TempDir() + "/file"
			if err := os.WriteFile(name, []byte(strings.Repeat("x", 50)), 0o600); err != nil {
				t.Fatal(err)
			}
			s := shared[scene](t)
			s.fd[0] = open(t, name)
			var all []lwp.Process
			for range 50 {
				all = append(all, forks(t, func(s *scene) int {
					var b [1]byte
					n, _, _ := unix.RawSyscall(unix.SYS_READ, uintptr(s.fd[0]), uintptr(unsafe.Pointer(&b)), 1)
					return int(n)
				}, s))
			}
			for _, p := range all {
				ends(t, p, 1)
			}
			if at, _ := unix.Seek(s.fd[0], 0, 1); at != 50 {
				t.Errorf("the offset is %d", at)
			}
		}},
		{"fork08", func(t *testing.T) {
			s := shared[scene](t)
			s.fd[0] = open(t, os.DevNull)
			ends(t, forks(t, func(s *scene) int {
				s.call(0, unix.SYS_CLOSE, uintptr(s.fd[0]), 0, 0)
				s.call(1, unix.SYS_CLOSE, uintptr(s.fd[0]), 0, 0)
				return 0
			}, s), 0)
			s.expect(t, 0, "close in the child", 0)
			s.expect(t, 1, "closed twice", unix.EBADF)
			if _, err := unix.FcntlInt(uintptr(s.fd[0]), unix.F_GETFD, 0); err != nil {
				t.Error("the parent's descriptor: ", err)
			}
			// Another child still has it.
			ends(t, forks(t, func(s *scene) int {
				s.call(2, unix.SYS_CLOSE, uintptr(s.fd[0]), 0, 0)
				return 0
			}, s), 0)
			s.expect(t, 2, "close in the other child", 0)
		}},
		{"fork09", func(t *testing.T) {
			s := shared[scene](t)
			ends(t, forks(t, func(s *scene) int {
				limit := [2]uint64{64, 64}
				unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
				for round := range 2 {
					for fd := range 1024 {
						if fd != 1 && fd != 2 {
							unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
						}
					}
					n := 0
					for {
						here := unix.AT_FDCWD
						_, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(here), uintptr(unsafe.Pointer(&rootDir[0])), unix.O_RDONLY, 0, 0, 0)
						if errno != 0 {
							s.errno[round] = uint32(errno)
							break
						}
						n++
					}
					s.n[round] = n
				}
				return 0
			}, s), 0)
			if s.n[0] != 62 || s.n[1] != 62 || syscall.Errno(s.errno[0]) != unix.EMFILE {
				t.Errorf("opened %v of 62, then %v", s.n[:2], syscall.Errno(s.errno[0]))
			}
			if _, err := unix.FcntlInt(0, unix.F_GETFD, 0); err != nil {
				t.Error("the parent's descriptor 0: ", err)
			}
		}},
		{"fork10", func(t *testing.T) {
			name := t.TempDir() + "/file"
			if err := os.WriteFile(name, []byte("aaaaaaaaaabbbbbbbbbbcccccccccc"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := shared[scene](t)
			s.fd[0] = open(t, name)
			ends(t, forks(t, func(s *scene) int {
				s.call(0, unix.SYS_LSEEK, uintptr(s.fd[0]), 10, 0)
				return 0
			}, s), 0)
			var b [10]byte
			if n, err := unix.Read(s.fd[0], b[:]); n != 10 || string(b[:]) != "bbbbbbbbbb" {
				t.Errorf("the parent reads %q, %v", b[:n], err)
			}
		}},
		{"fork13", func(t *testing.T) {
			last, same := 0, 0
			for range 2000 {
				p, err := lwp.VFork(answer, &seven, lwp.ProcessAttr{})
				if err != nil {
					t.Fatal(err)
				}
				pid := p.PID()
				p.Wait()
				if pid == last {
					same++
				}
				last = pid
			}
			if same > 0 {
				t.Errorf("%d IDs were used again at once", same)
			}
		}},
		{"fork14", func(t *testing.T) {
			var maps []uintptr
			for range 17 { // TiB, reserved and never touched
				a, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, 1<<40, unix.PROT_READ|unix.PROT_WRITE,
					unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE, ^uintptr(0), 0)
				if errno != 0 {
					t.Log("mmap: ", errno)
					break
				}
				maps = append(maps, a)
			}
			p, err := lwp.StartProcess(answer, &seven, lwp.ProcessAttr{})
			for _, a := range maps {
				unix.Syscall(unix.SYS_MUNMAP, a, 1<<40, 0)
			}
			if err == nil {
				ends(t, p, 7)
			} else if !errors.Is(err, unix.ENOMEM) {
				t.Error(err)
			}
			if len(maps) < 17 {
				t.Errorf("only %d TiB were mapped", len(maps))
			}
		}},
		{"fork_procs", func(t *testing.T) {
			seen := map[int]bool{}
			var all []lwp.Process
			s := shared[scene](t)
			for range 200 {
				all = append(all, process(t, linger, s, lwp.ProcessAttr{}))
			}
			s.leave.open()
			for i := len(all) - 1; i >= 0; i-- {
				pid := all[i].PID()
				if st := ends(t, all[i], 0); st.PID != pid || seen[pid] {
					t.Errorf("process %d was reaped as %d", pid, st.PID)
				}
				seen[pid] = true
			}
		}},
	})
}

var envCopy []byte

func TestConformanceVFork(t *testing.T) {
	conform(t, []caseRow{
		{"vfork01", func(t *testing.T) {
			pinned(t)
			s := new(scene)
			p, err := lwp.VFork(func(s *scene) int {
				for i, trap := range [...]uintptr{unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETPGID, unix.SYS_GETSID} {
					s.call(i, trap, 0, 0, 0)
				}
				s.call(6, unix.SYS_UMASK, 0o22, 0, 0)
				var st [2]unix.Stat_t
				here := unix.AT_FDCWD
				for i, path := range [][]byte{rootDir, hereDir} {
					s.call(7, unix.SYS_NEWFSTATAT, uintptr(here), uintptr(unsafe.Pointer(&path[0])), uintptr(unsafe.Pointer(&st[i])))
					s.n[8+i] = int(st[i].Ino)
				}
				return 0
			}, s, lwp.ProcessAttr{})
			if err != nil {
				t.Fatal(err)
			}
			ends(t, p, 0)
			mask := syscall.Umask(0o22)
			syscall.Umask(mask)
			pgid, _ := unix.Getpgid(0)
			sid, _ := unix.Getsid(0)
			var root, cwd unix.Stat_t
			unix.Stat("/", &root)
			unix.Stat(".", &cwd)
			want := []int{os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), pgid, sid, mask, 0, int(root.Ino), int(cwd.Ino)}
			for i, w := range want {
				if s.n[i] != w {
					t.Errorf("item %d: the child has %d, the parent %d", i, s.n[i], w)
				}
			}
		}},
		{"vfork02", func(t *testing.T) {
			pinned(t)
			var old uint64
			block := uint64(1) << (unix.SIGUSR1 - 1)
			unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, ptr(&block), ptr(&old), 8, 0, 0)
			unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGUSR1)
			s := new(scene)
			p, err := lwp.VFork(func(s *scene) int {
				var pending uint64
				s.call(0, unix.SYS_RT_SIGPENDING, uintptr(unsafe.Pointer(&pending)), 8, 0)
				return int(pending >> (unix.SIGUSR1 - 1) & 1)
			}, s, lwp.ProcessAttr{Blocked: block})
			if err != nil {
				t.Error(err)
			} else {
				ends(t, p, 0)
			}
			var pending uint64
			unix.RawSyscall(unix.SYS_RT_SIGPENDING, ptr(&pending), 8, 0)
			if pending&block == 0 {
				t.Error("the signal is not pending in the parent")
			}
			// Take it, and let none through.
			var info [128]byte
			unix.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, ptr(&block), ptr(&info), 0, 8, 0, 0)
			unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, ptr(&old), 0, 8, 0, 0)
			runtime.KeepAlive(s)
		}},
	})
}

var hereDir = []byte(".\x00")

func TestConformanceNamespaces(t *testing.T) {
	conform(t, []caseRow{
		{"unshare01", func(t *testing.T) {
			needNamespaces(t)
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				for i, flag := range unshareFlags {
					s.call(i, unix.SYS_UNSHARE, uintptr(flag), 0, 0)
				}
				return 0
			})
			for i, flag := range unshareFlags {
				s.expect(t, i, flag.String(), 0)
			}
		}},
		{"unshare02", func(t *testing.T) {
			lwptest.NeedRoot(t)
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				s.call(0, unix.SYS_UNSHARE, uintptr(lwp.CloneParentSetTID), 0, 0)
				s.call(1, unix.SYS_UNSHARE, 1<<31, 0, 0)
				asNobody()
				s.call(2, unix.SYS_UNSHARE, uintptr(lwp.CloneNewNS), 0, 0)
				s.call(3, unix.SYS_UNSHARE, uintptr(lwp.CloneNewUTS), 0, 0)
				return 0
			})
			s.expect(t, 0, "no flag of unshare's", unix.EINVAL)
			s.expect(t, 1, "CLONE_IO", unix.EINVAL)
			s.expect(t, 2, "NEWNS without privilege", unix.EPERM)
			s.expect(t, 3, "NEWUTS without privilege", unix.EPERM)
		}},
		{"unshare03", unshare03},
		{"unshare04", func(t *testing.T) {
			needNamespaces(t)
			// A process that shares FS with its maker unshares the mounts, and moves.
			s := shared[scene](t)
			ends(t, process(t, func(s *scene) int {
				p, err := lwp.StartProcess(func(s *scene) int {
					s.call(0, unix.SYS_UNSHARE, uintptr(lwp.CloneNewNS), 0, 0)
					s.call(1, unix.SYS_CHDIR, uintptr(unsafe.Pointer(&rootDir[0])), 0, 0)
					return 0
				}, s, lwp.ProcessAttr{Flags: lwp.CloneFS})
				if err != nil {
					return 1
				}
				p.Wait()
				s.call(2, unix.SYS_GETCWD, uintptr(unsafe.Pointer(&s.text)), uintptr(len(s.text)), 0)
				return 0
			}, s, lwp.ProcessAttr{}), 0)
			wd, _ := os.Getwd()
			if got := unix.ByteSliceToString(s.text[:]); got != wd || s.errno[0]|s.errno[1] != 0 {
				t.Errorf("the maker is in %s, want %s; unshare %v, chdir %v", got, wd, syscall.Errno(s.errno[0]), syscall.Errno(s.errno[1]))
			}
		}},
		{"unshare05", func(t *testing.T) {
			needNamespaces(t)
			s := shared[scene](t)
			ends(t, process(t, func(s *scene) int {
				s.call(0, unix.SYS_UNSHARE, uintptr(lwp.CloneNewPID), 0, 0)
				p, err := lwp.StartProcess(func(s *scene) int { s.note(); return 0 }, s, lwp.ProcessAttr{})
				if err != nil {
					return 1
				}
				st, _ := p.Wait()
				return st.ExitCode()
			}, s, lwp.ProcessAttr{}), 0)
			if s.pid != 1 {
				t.Errorf("the first child is process %d", s.pid)
			}
		}},
		{"setns01", func(t *testing.T) {
			needNamespaces(t)
			s := shared[scene](t)
			s.fd[0] = open(t, "/proc/self/ns/uts")
			s.fd[1] = open(t, os.DevNull)
			ends(t, process(t, func(s *scene) int {
				s.call(0, unix.SYS_SETNS, ^uintptr(0), 0, 0)
				s.call(1, unix.SYS_SETNS, uintptr(s.fd[1]), 0, 0)
				s.call(2, unix.SYS_SETNS, uintptr(s.fd[0]), uintptr(lwp.CloneNewIPC), 0)
				s.call(3, unix.SYS_SETNS, uintptr(s.fd[0]), 0, 0)
				asNobody()
				s.call(4, unix.SYS_SETNS, uintptr(s.fd[0]), 0, 0)
				return 0
			}, s, lwp.ProcessAttr{}), 0)
			s.expect(t, 0, "no descriptor", unix.EBADF)
			s.expect(t, 1, "no namespace", unix.EINVAL)
			s.expect(t, 2, "another type", unix.EINVAL)
			s.expect(t, 3, "any type", 0)
			s.expect(t, 4, "without privilege", unix.EPERM)
		}},
		{"setns02", func(t *testing.T) {
			needNamespaces(t)
			id, err := call(unix.SYS_SHMGET, 0, 4096, 0o600) // IPC_PRIVATE
			if err != nil {
				t.Fatal("shmget: ", err)
			}
			defer call(unix.SYS_SHMCTL, id, 0, 0) // IPC_RMID
			s := shared[scene](t)
			s.fd[0], s.fd[1] = open(t, "/proc/self/ns/uts"), open(t, "/proc/self/ns/ipc")
			s.n[15] = int(id)
			ends(t, process(t, func(s *scene) int {
				const ipcStat = 2
				var ds [256]byte
				stat := func(i int) {
					s.call(i, unix.SYS_SHMCTL, uintptr(s.n[15]), ipcStat, uintptr(unsafe.Pointer(&ds)))
				}
				name := [8]byte{'s', 'e', 't', 'n', 's'}
				s.call(0, unix.SYS_SETHOSTNAME, uintptr(unsafe.Pointer(&name)), 5, 0)
				stat(1)
				s.call(2, unix.SYS_SETNS, uintptr(s.fd[0]), uintptr(lwp.CloneNewUTS), 0)
				s.call(3, unix.SYS_SETNS, uintptr(s.fd[1]), uintptr(lwp.CloneNewIPC), 0)
				stat(4)
				var u unix.Utsname
				s.call(5, unix.SYS_UNAME, uintptr(unsafe.Pointer(&u)), 0, 0)
				copy(s.text[:], u.Nodename[:])
				return 0
			}, s, lwp.ProcessAttr{Flags: lwp.CloneNewUTS | lwp.CloneNewIPC}), 0)
			s.expect(t, 0, "sethostname", 0)
			s.expect(t, 1, "the segment in the new namespace", unix.EINVAL)
			s.expect(t, 2, "setns to UTS", 0)
			s.expect(t, 3, "setns to IPC", 0)
			s.expect(t, 4, "the segment in the old namespace", 0)
			host, _ := os.Hostname()
			if got := unix.ByteSliceToString(s.text[:]); got != host {
				t.Errorf("the host is %s, want %s", got, host)
			}
		}},
	})
}

var unshareFlags = [...]lwp.Flags{lwp.CloneFiles, lwp.CloneFS, lwp.CloneSysvsem, lwp.CloneNewNS, lwp.CloneNewUTS,
	lwp.CloneNewIPC, lwp.CloneNewNet, lwp.CloneNewCgroup, lwp.CloneNewPID, lwp.CloneNewTime, lwp.CloneNewUser}

// unshare03 lowers the limit of descriptors below one that is open, for the
// microseconds of one call: all of the machine has that limit.
func unshare03(t *testing.T) {
	lwptest.NeedRoot(t)
	const file = "/proc/sys/fs/nr_open"
	old := readTrim(t, file)
	s := shared[scene](t)
	var err error
	if s.fd[0], err = unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
		t.Skip("the limit cannot be changed: ", err)
	}
	defer unix.Close(s.fd[0])
	s.n[15] = copy(s.text[:], old)
	ends(t, process(t, func(s *scene) int {
		const high = 10_000
		limit := [2]uint64{high + 1, high + 1}
		s.call(0, unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&limit)))
		s.call(1, unix.SYS_DUP3, 2, high, 0)
		// The child shares the table, or there would be nothing to unshare.
		p, err := lwp.StartProcess(func(s *scene) int {
			low := [4]byte{'8', '1', '9', '2'}
			s.call(2, unix.SYS_PWRITE64, uintptr(s.fd[0]), uintptr(unsafe.Pointer(&low)), 4)
			s.call(3, unix.SYS_UNSHARE, uintptr(lwp.CloneFiles), 0, 0)
			s.call(4, unix.SYS_PWRITE64, uintptr(s.fd[0]), uintptr(unsafe.Pointer(&s.text)), uintptr(s.n[15]))
			return 0
		}, s, lwp.ProcessAttr{Flags: lwp.CloneFiles})
		if err != nil {
			return 1
		}
		st, _ := p.Wait()
		return st.ExitCode()
	}, s, lwp.ProcessAttr{}), 0)
	if got := readTrim(t, file); got != old {
		os.WriteFile(file, []byte(old), 0)
		t.Errorf("the limit was left at %s", got)
	}
	if s.errno[2] != 0 {
		t.Skip("the limit cannot be changed: ", syscall.Errno(s.errno[2]))
	}
	for i, what := range []string{"prlimit", "dup3"} {
		s.expect(t, i, what, 0)
	}
	s.expect(t, 3, "unshare of the table", unix.EMFILE)
}
