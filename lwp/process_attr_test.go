package lwp_test

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

func TestTerminationSignal(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "termination signals but SIGCHLD")
	c := make(chan os.Signal, 10)
	signal.Notify(c, unix.SIGUSR1, unix.SIGCHLD)
	defer signal.Stop(c)
	arrives := func(want os.Signal) {
		t.Helper()
		select {
		case got := <-c:
			if got != want {
				t.Errorf("signal %v, want %v", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("no signal, want %v", want)
		}
	}
	code := 3
	for _, sig := range []syscall.Signal{0, unix.SIGCHLD, unix.SIGUSR1, lwp.NoSignal} {
		p := process(t, answer, &code, lwp.ProcessAttr{ExitSignal: sig})
		other := sig == unix.SIGUSR1 || sig == lwp.NoSignal
		// WClone is for those that end with another signal, none at all included.
		_, err := p.WaitWith(lwp.WExited | lwp.WNoWait)
		if (err == lwp.ErrNotChild) != other {
			t.Errorf("%d: a wait without WClone gives %v", sig, err)
		}
		_, err = p.WaitWith(lwp.WExited | lwp.WNoWait | lwp.WClone)
		if (err == lwp.ErrNotChild) == other {
			t.Errorf("%d: a wait with WClone gives %v", sig, err)
		}
		ends(t, p, 3)
		switch {
		case sig == lwp.NoSignal:
			select {
			case got := <-c:
				t.Errorf("a child without a signal sent %v", got)
			case <-time.After(20 * time.Millisecond):
			}
		case sig == unix.SIGUSR1:
			arrives(unix.SIGUSR1)
		default:
			arrives(unix.SIGCHLD)
		}
	}
}

func TestSetTID(t *testing.T) {
	begin(t)
	needNamespaces(t)
	lwptest.NeedCap(t, unix.CAP_SYS_ADMIN)
	// An ID that is free: that of a child that has been collected.
	code := 0
	p := process(t, answer, &code, lwp.ProcessAttr{})
	pid := p.PID()
	ends(t, p, 0)
	p, s := lingers(t, lwp.ProcessAttr{SetTID: []int32{int32(pid)}})
	if p.PID() != pid || s.pid != pid {
		t.Errorf("the child is %d, by itself %d, want %d", p.PID(), s.pid, pid)
	}
	_, err := lwp.StartProcess(linger, s, lwp.ProcessAttr{SetTID: []int32{int32(pid)}})
	if !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "taken") {
		t.Errorf("an ID that is taken: %v", err)
	}
	s.dismiss(t, p)
	// Two namespaces: 1 in the new one, pid in this.
	p, s = lingers(t, lwp.ProcessAttr{Flags: lwp.CloneNewPID, SetTID: []int32{1, int32(pid)}})
	if p.PID() != pid || s.pid != 1 {
		t.Errorf("the child is %d, by itself %d, want %d and 1", p.PID(), s.pid, pid)
	}
	s.dismiss(t, p)
}

func TestPdeathsig(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "PDEATHSIG")
	s := shared[scene](t)
	// The maker is a thread of ours: its end is the parent's, as the signal has it.
	lwptest.OnThread(t, func(s *scene) {
		p, err := lwp.StartProcess(linger, s, lwp.ProcessAttr{Pdeathsig: unix.SIGTERM})
		if err == nil {
			s.n[0] = p.PID()
			s.up.pass()
		}
	}, s)
	if s.n[0] == 0 {
		t.Fatal("no child")
	}
	var st unix.WaitStatus
	if pid, err := unix.Wait4(s.n[0], &st, 0, nil); err != nil || pid != s.n[0] || st.Signal() != unix.SIGTERM {
		t.Errorf("the child ended with %#x, %v", st, err)
	}
	lwp.CollectProcesses()
}

func TestAsRootOfAUserNamespace(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "user namespaces")
	s := shared[scene](t)
	p, err := lwp.StartProcess(func(s *scene) int {
		s.n[0], s.n[1] = raw(unix.SYS_GETUID), raw(unix.SYS_GETGID)
		return linger(s)
	}, s, lwp.ProcessAttr{Flags: lwp.CloneNewUser | lwp.CloneNewUTS, AsRoot: true})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.up.pass()
	if s.n[0] != 0 || s.n[1] != 0 {
		t.Errorf("user %d, group %d", s.n[0], s.n[1])
	}
	if got := strings.Fields(readTrim(t, fmt.Sprintf("/proc/%d/uid_map", p.PID()))); len(got) != 3 || got[0] != "0" || got[1] != fmt.Sprint(os.Geteuid()) || got[2] != "1" {
		t.Errorf("uid_map %v", got)
	}
	s.dismiss(t, p)
}
