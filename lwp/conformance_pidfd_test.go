package lwp_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// waitPIDFD is waitid(2) by descriptor.
func waitPIDFD(fd, options int) (info [32]int32, err error) {
	_, err = call(unix.SYS_WAITID, unix.P_PIDFD, uintptr(fd), ptr(&info), uintptr(options))
	return info, err
}

// In the siginfo_t of a child.
const (
	infoCode, infoPID, infoStatus = 2, 4, 6
)

// readable says whether a descriptor is readable within some time.
func readable(t testing.TB, fd int, within time.Duration) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, int(within.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal("poll: ", err)
		}
		return n == 1 && p[0].Revents&unix.POLLIN != 0
	}
}

func TestConformancePIDFD(t *testing.T) {
	conform(t, []caseRow{
		{"pidfd_open01", func(t *testing.T) {
			p, s := lingers(t, lwp.ProcessAttr{})
			fd, err := p.PIDFD()
			if err != nil {
				t.Fatal(err)
			}
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Error("not close-on-exec")
			}
			s.dismiss(t, p)
		}},
		{"pidfd_open02", func(t *testing.T) {
			open := func(pid, flags int) error {
				fd, err := unix.PidfdOpen(pid, flags)
				if err == nil {
					unix.Close(fd)
				}
				return err
			}
			errs(t, "a PID that is free", open(1<<30, 0), unix.ESRCH)
			errs(t, "PID -1", open(-1, 0), unix.EINVAL)
			errs(t, "flags", open(os.Getpid(), 1), unix.EINVAL)
		}},
		{"pidfd_open03", func(t *testing.T) {
			p, s := lingers(t, lwp.ProcessAttr{})
			fd := pidfdOf(t, p, 0)
			if readable(t, fd, 0) {
				t.Error("readable while the child runs")
			}
			s.leave.open()
			if !readable(t, fd, 10*time.Second) {
				t.Error("not readable when the child has ended")
			}
			ends(t, p, 0)
		}},
		{"pidfd_open04", func(t *testing.T) {
			p, s := lingers(t, lwp.ProcessAttr{})
			fd := pidfdOf(t, p, unix.PIDFD_NONBLOCK)
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
				t.Error("not O_NONBLOCK")
			}
			_, err := waitPIDFD(fd, unix.WEXITED)
			errs(t, "a child that runs", err, unix.EAGAIN)
			s.leave.open()
			readable(t, fd, 10*time.Second)
			if info, err := waitPIDFD(fd, unix.WEXITED|unix.WNOWAIT); err != nil || int(info[infoPID]) != p.PID() {
				t.Errorf("waited for %d, %v", info[infoPID], err)
			}
			ends(t, p, 0)
		}},
		{"pidfd_getfd01", func(t *testing.T) {
			p, s := lingers(t, lwp.ProcessAttr{})
			file := open(t, os.DevNull)
			fd, err := unix.PidfdGetfd(pidfdOf(t, p, 0), 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if order, err := lwp.Kcmp(os.Getpid(), p.PID(), lwp.KcmpFile, uintptr(fd), 1); err != nil || order != 0 {
				t.Errorf("the copy is another file: %d, %v", order, err)
			}
			if order, _ := lwp.Kcmp(os.Getpid(), p.PID(), lwp.KcmpFile, uintptr(file), 1); order == 0 {
				t.Error("any file is the same")
			}
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Error("not close-on-exec")
			}
			s.dismiss(t, p)
		}},
		{"pidfd_getfd02", getfdErrors},
		{"pidfd_send_signal01", func(t *testing.T) {
			const value = 0x1234
			s := shared[scene](t)
			p := process(t, func(s *scene) int {
				s.up.open()
				mask := uint64(1) << (unix.SIGUSR1 - 1)
				var info [32]int32
				unix.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&info)), 0, 8, 0, 0)
				s.n[0], s.n[1], s.n[2] = int(info[0]), int(info[2]), int(info[6])
				return 0
			}, s, lwp.ProcessAttr{Blocked: 1 << (unix.SIGUSR1 - 1)})
			s.up.pass()
			info := [32]int32{0: int32(unix.SIGUSR1), 2: -1, 4: int32(os.Getpid()), 6: value} // SI_QUEUE
			_, err := call(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(pidfdOf(t, p, 0)), uintptr(unix.SIGUSR1), ptr(&info), 0)
			errs(t, "pidfd_send_signal", err, 0)
			ends(t, p, 0)
			if s.n[0] != int(unix.SIGUSR1) || s.n[1] != -1 || s.n[2] != value {
				t.Errorf("signal %d, code %d, value %#x arrived", s.n[0], s.n[1], s.n[2])
			}
		}},
		{"pidfd_send_signal02", func(t *testing.T) {
			lwptest.NeedRoot(t)
			p, s := lingers(t, lwp.ProcessAttr{})
			fd := pidfdOf(t, p, 0)
			errs(t, "flags", unix.PidfdSendSignal(fd, unix.SIGUSR1, nil, 99), unix.EINVAL)
			errs(t, "no signal", unix.PidfdSendSignal(fd, 100, nil, 0), unix.EINVAL)
			errs(t, "no descriptor", unix.PidfdSendSignal(9999, 0, nil, 0), unix.EBADF)
			errs(t, "no pidfd", unix.PidfdSendSignal(open(t, os.DevNull), 0, nil, 0), unix.EBADF)
			s.fd[0] = fd
			c := process(t, func(s *scene) int {
				asNobody()
				s.call(0, unix.SYS_PIDFD_SEND_SIGNAL, uintptr(s.fd[0]), uintptr(unix.SIGTERM), 0)
				return 0
			}, s, lwp.ProcessAttr{})
			ends(t, c, 0)
			s.expect(t, 0, "to another user's", unix.EPERM)
			s.dismiss(t, p)
		}},
		{"pidfd_send_signal03", recycled},
	})
}

func getfdErrors(t *testing.T) {
	lwptest.NeedRoot(t)
	p, s := lingers(t, lwp.ProcessAttr{})
	fd := pidfdOf(t, p, 0)
	get := func(pidfd, fd, flags int) error {
		got, err := unix.PidfdGetfd(pidfd, fd, flags)
		if err == nil {
			unix.Close(got)
		}
		return err
	}
	errs(t, "no pidfd", get(9999, 1, 0), unix.EBADF)
	errs(t, "another kind", get(open(t, os.DevNull), 1, 0), unix.EBADF)
	errs(t, "no descriptor there", get(fd, 9999, 0), unix.EBADF)
	errs(t, "flags", get(fd, 1, 1), unix.EINVAL)
	s.fd[0] = fd
	ends(t, process(t, func(s *scene) int {
		asNobody()
		s.call(0, unix.SYS_PIDFD_GETFD, uintptr(s.fd[0]), 1, 0)
		return 0
	}, s, lwp.ProcessAttr{}), 0)
	s.expect(t, 0, "another user's", unix.EPERM)
	s.dismiss(t, p)
	errs(t, "a process that is gone", get(fd, 1, 0), unix.ESRCH)
}

// recycled has the ID of a process used again: its descriptor must not lead to
// the new one.
func recycled(t *testing.T) {
	needNamespaces(t)
	p, s := lingers(t, lwp.ProcessAttr{})
	pid := p.PID()
	fd := pidfdOf(t, p, 0)
	s.dismiss(t, p)
	q, s := lingers(t, lwp.ProcessAttr{SetTID: []int32{int32(pid)}})
	errs(t, "a signal to the old one", unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0), unix.ESRCH)
	if _, err := q.WaitWith(lwp.WExited | lwp.WNoHang); err != lwp.ErrRuns {
		t.Errorf("the new one: %v", err)
	}
	s.dismiss(t, q)
}

func TestConformancePIDFDSelftests(t *testing.T) {
	conform(t, []caseRow{
		{"pidfd_test", func(t *testing.T) {
			t.Run("recycled", recycled)
			p, s := lingers(t, lwp.ProcessAttr{})
			fd := pidfdOf(t, p, 0)
			errs(t, "signal 0", unix.PidfdSendSignal(fd, 0, nil, 0), 0)
			s.leave.open()
			readable(t, fd, 10*time.Second)
			errs(t, "a zombie", unix.PidfdSendSignal(fd, 0, nil, 0), 0)
			ends(t, p, 0)
			errs(t, "collected", unix.PidfdSendSignal(fd, 0, nil, 0), unix.ESRCH)
			// A program in its place is the same process; a leader that exits
			// leaves its threads.
			out, st := sh(t, "exec sh -c 'exit 5'", lwp.ExecAttr{ProcessAttr: lwp.ProcessAttr{Flags: lwp.ClonePIDFD}})
			if out != "" || st.ExitCode() != 5 {
				t.Errorf("%q, %v", out, st)
			}
			t.Run("leader exits", leaderExits)
		}},
		{"pidfd_open_test", func(t *testing.T) {
			for _, c := range []struct{ pid, flags int }{{-1, 0}, {os.Getpid(), 0xffff}, {0, 0}} {
				if fd, err := unix.PidfdOpen(c.pid, c.flags); err != unix.EINVAL {
					t.Errorf("pidfd_open(%d, %#x): %d, %v", c.pid, c.flags, fd, err)
				}
			}
			p, s := lingers(t, lwp.ProcessAttr{Flags: lwp.ClonePIDFD})
			fd := pidfdOf(t, p, 0)
			if info := readTrim(t, fmt.Sprintf("/proc/self/fdinfo/%d", fd)); !contains(info, fmt.Sprintf("Pid:\t%d\n", p.PID())) {
				t.Errorf("fdinfo\n%s", info)
			}
			s.dismiss(t, p)
			if info := readTrim(t, fmt.Sprintf("/proc/self/fdinfo/%d", fd)); !contains(info, "Pid:\t-1\n") {
				t.Errorf("fdinfo of one that is gone\n%s", info)
			}
		}},
		{"pidfd_poll_test", func(t *testing.T) {
			for range 50 {
				p, s := lingers(t, lwp.ProcessAttr{})
				fd := pidfdOf(t, p, 0)
				s.leave.open()
				if !readable(t, fd, 10*time.Second) {
					t.Fatal("the end is not seen")
				}
				ends(t, p, 0)
				if !readable(t, fd, 0) {
					t.Error("not readable after it was collected")
				}
			}
			t.Run("leader exits", leaderExits)
		}},
		{"pidfd_wait", pidfdWait},
		{"pidfd_getfd_test", func(t *testing.T) {
			t.Run("errors", getfdErrors)
			// A file that only the child has, by way of memory.
			s := shared[scene](t)
			p := process(t, func(s *scene) int {
				s.call(0, unix.SYS_MEMFD_CREATE, uintptr(unsafe.Pointer(&memName[0])), 0, 0)
				return linger(s)
			}, s, lwp.ProcessAttr{})
			s.up.pass()
			fd, err := unix.PidfdGetfd(pidfdOf(t, p, 0), s.n[0], 0)
			errs(t, "pidfd_getfd", err, 0)
			if link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); !contains(link, "memfd:getfd") {
				t.Errorf("the descriptor is of %s", link)
			}
			unix.Close(fd)
			s.dismiss(t, p)
		}},
		{"pidfd_setns_test", pidfdSetns},
		{"pidfd_info_test", pidfdInfo},
	})
}

var memName = []byte("getfd\x00")

// leaderExits has the first thread of a process end before another: the process
// has ended with the last.
func leaderExits(t *testing.T) {
	s := shared[scene](t)
	p := process(t, func(s *scene) int {
		if _, err := lwp.Start(func(s *scene) {
			s.up.open()
			s.leave.pass()
		}, s); err != nil {
			return 1
		}
		unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // of the leader alone
		return 2
	}, s, lwp.ProcessAttr{})
	s.up.pass()
	fd := pidfdOf(t, p, 0)
	if readable(t, fd, 20*time.Millisecond) {
		t.Error("readable while a thread runs")
	}
	errs(t, "a signal", unix.PidfdSendSignal(fd, 0, nil, 0), 0)
	s.leave.open()
	if !readable(t, fd, 10*time.Second) {
		t.Error("not readable when the last thread has ended")
	}
	ends(t, p, 0)
}

func pidfdWait(t *testing.T) {
	p, _ := lingers(t, lwp.ProcessAttr{})
	fd := pidfdOf(t, p, 0)
	for _, c := range []struct {
		sig          syscall.Signal
		options      int
		code, status int32
	}{
		{unix.SIGSTOP, unix.WSTOPPED, 5, int32(unix.SIGSTOP)},
		{unix.SIGCONT, unix.WCONTINUED, 6, int32(unix.SIGCONT)},
		{unix.SIGKILL, unix.WEXITED | unix.WNOWAIT, 2, int32(unix.SIGKILL)},
	} {
		errs(t, c.sig.String(), unix.PidfdSendSignal(fd, c.sig, nil, 0), 0)
		info, err := waitPIDFD(fd, c.options)
		if err != nil || int(info[infoPID]) != p.PID() || info[infoCode] != c.code || info[infoStatus] != c.status {
			t.Errorf("%v: code %d, status %d, %v", c.sig, info[infoCode], info[infoStatus], err)
		}
	}
	_, err := waitPIDFD(9999, unix.WEXITED)
	errs(t, "no descriptor", err, unix.EBADF)
	_, err = waitPIDFD(-1, unix.WEXITED)
	errs(t, "descriptor -1", err, unix.EINVAL)
	if st, err := p.Wait(); err != nil || st.Signal() != unix.SIGKILL {
		t.Errorf("%v, %v", st, err)
	}
}

func pidfdSetns(t *testing.T) {
	needNamespaces(t)
	const all = lwp.CloneNewNS | lwp.CloneNewUTS | lwp.CloneNewIPC | lwp.CloneNewNet | lwp.CloneNewPID | lwp.CloneNewCgroup | lwp.CloneNewTime
	p, s := lingers(t, lwp.ProcessAttr{Flags: all})
	s.fd[0] = pidfdOf(t, p, 0)
	q := process(t, func(s *scene) int {
		s.call(0, unix.SYS_SETNS, uintptr(s.fd[0]), 0, 0)
		s.call(1, unix.SYS_SETNS, uintptr(s.fd[0]), uintptr(all), 0)
		s.n[2] = 1
		s.up.open()
		s.leave.pass()
		return 0
	}, s, lwp.ProcessAttr{})
	lwptest.Eventually(t, "setns", func() bool { return s.n[2] == 1 })
	s.expect(t, 0, "no type", unix.EINVAL)
	s.expect(t, 1, "all types", 0)
	for _, kind := range []string{"mnt", "uts", "ipc", "net", "pid_for_children", "cgroup", "time"} {
		mine, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", q.PID(), kind))
		theirs, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.PID(), kind))
		if mine != theirs || mine == "" {
			t.Errorf("namespace %s: %s, want %s", kind, mine, theirs)
		}
	}
	s.leave.open()
	ends(t, q, 0)
	ends(t, p, 0)
}

// pidfdInfo is struct pidfd_info of <linux/pidfd.h>, Linux 6.13, with the exit
// code of 6.15.
type pidfdInfoArgs struct {
	mask, _      uint64
	pid, _, ppid uint32
	ids          [8]uint32 // ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid
	exit         int32
	_            [2]uint32
}

func pidfdInfo(t *testing.T) {
	const request = 3<<30 | 0xff<<8 | 11 // _IOWR(PIDFS_IOCTL_MAGIC, 11, ...)
	info := func(fd int, mask uint64) (a pidfdInfoArgs, err error) {
		a.mask = mask
		_, err = call(unix.SYS_IOCTL, uintptr(fd), request|unsafe.Sizeof(a)<<16, ptr(&a))
		return a, err
	}
	const pidCredsCgroup, exit = 7, 8
	p, s := lingers(t, lwp.ProcessAttr{})
	fd := pidfdOf(t, p, 0)
	a, err := info(fd, pidCredsCgroup)
	if err == unix.ENOTTY || err == unix.EINVAL {
		s.dismiss(t, p)
		t.Skip("this kernel has no PIDFD_GET_INFO: ", err)
	}
	if err != nil || int(a.pid) != p.PID() || int(a.ppid) != os.Getpid() || int(a.ids[0]) != os.Getuid() {
		t.Errorf("pid %d, ppid %d, uid %d, %v", a.pid, a.ppid, a.ids[0], err)
	}
	if a, err := info(fd, exit); err == nil && a.mask&exit != 0 {
		t.Error("exit information of a process that runs")
	}
	p.Signal(unix.SIGKILL)
	if st, err := p.Wait(); err != nil || st.Signal() != unix.SIGKILL {
		t.Errorf("%v, %v", st, err)
	}
	a, err = info(fd, exit)
	if err == unix.ESRCH || err == nil && a.mask&exit == 0 {
		t.Skip("this kernel has no PIDFD_INFO_EXIT")
	}
	if err != nil || syscall.WaitStatus(a.exit).Signal() != unix.SIGKILL {
		t.Errorf("exit information %#x, %v", a.exit, err)
	}
}
