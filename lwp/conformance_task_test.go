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

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

func TestConformanceIdentity(t *testing.T) {
	conform(t, []caseRow{
		{"gettid01", func(t *testing.T) {
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int { s.note(); return 0 })
			if s.tid != s.pid || s.tid == 0 {
				t.Errorf("task %d of process %d", s.tid, s.pid)
			}
		}},
		{"gettid02", func(t *testing.T) {
			seen := map[int]bool{os.Getpid(): true}
			var threads []lwp.Thread
			var stages []*stage
			for range 10 {
				th, s := stays(t, lwp.Attr{})
				if tid := int(s.tid.Load()); seen[tid] || tid != th.TID() {
					t.Errorf("task %d, by its handle %d, seen before: %v", tid, th.TID(), seen[tid])
				} else {
					seen[tid] = true
				}
				if got := readTrim(t, fmt.Sprintf("/proc/self/task/%d/status", th.TID())); !strings.Contains(got, fmt.Sprintf("\nTgid:\t%d\n", os.Getpid())) {
					t.Error("it is of another process")
				}
				threads, stages = append(threads, th), append(stages, s)
			}
			for i, th := range threads {
				stages[i].leave.Raise()
				join(t, th)
			}
		}},
		{"set_tid_address01", func(t *testing.T) {
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				s.note()
				s.call(0, unix.SYS_SET_TID_ADDRESS, uintptr(unsafe.Pointer(&s.n[1])), 0, 0)
				return 0
			})
			if s.n[0] != s.tid {
				t.Errorf("it returns %d, the task is %d", s.n[0], s.tid)
			}
		}},
		{"tgkill01", func(t *testing.T) {
			one, s1 := stays(t, lwp.Attr{})
			other, s2 := stays(t, lwp.Attr{})
			errs(t, "tgkill", unix.Tgkill(os.Getpid(), one.TID(), unix.SIGUSR1), 0)
			pending := func(tid int) (mask uint64) {
				_, rest, _ := strings.Cut(readTrim(t, fmt.Sprintf("/proc/self/task/%d/status", tid)), "\nSigPnd:")
				fmt.Sscanf(rest, "%x", &mask)
				return mask
			}
			if a, b, c := pending(one.TID()), pending(other.TID()), pending(os.Getpid()); a != 1<<(unix.SIGUSR1-1) || b != 0 || c != 0 {
				t.Errorf("pending on the one %#x, on another %#x, on the first %#x", a, b, c)
			}
			s1.leave.Raise()
			s2.leave.Raise()
			join(t, one)
			join(t, other)
		}},
		{"tgkill02", func(t *testing.T) {
			s := inChild(t, lwp.ProcessAttr{Blocked: 1 << 40}, func(s *scene) int {
				s.note()
				var none [2]uint64
				s.call(0, unix.SYS_PRLIMIT64, 0, unix.RLIMIT_SIGPENDING, uintptr(unsafe.Pointer(&none)))
				s.call(1, unix.SYS_TGKILL, uintptr(s.pid), uintptr(s.tid), 41)
				return 0
			})
			s.expect(t, 0, "prlimit", 0)
			s.expect(t, 1, "a real-time signal at the limit", unix.EAGAIN)
		}},
		{"tgkill03", func(t *testing.T) {
			me := os.Getpid()
			errs(t, "tid -1", unix.Tgkill(me, -1, 0), unix.EINVAL)
			errs(t, "tgid -1", unix.Tgkill(-1, me, 0), unix.EINVAL)
			errs(t, "signal 100", unix.Tgkill(me, me, 100), unix.EINVAL)
			errs(t, "a tid that is free", unix.Tgkill(me, 1<<30, 0), unix.ESRCH)
			errs(t, "a tid of another process", unix.Tgkill(me, 1, 0), unix.ESRCH)
			errs(t, "it exists", unix.Tgkill(me, me, 0), 0)
		}},
		{"tkill01", func(t *testing.T) {
			p, _ := lingers(t, lwp.ProcessAttr{})
			_, err := call(unix.SYS_TKILL, uintptr(p.PID()), uintptr(unix.SIGTERM))
			errs(t, "tkill", err, 0)
			if s, err := p.Wait(); err != nil || s.Signal() != unix.SIGTERM {
				t.Errorf("ended with %v, %v", s, err)
			}
		}},
		{"tkill02", func(t *testing.T) {
			_, err := call(unix.SYS_TKILL, ^uintptr(0), uintptr(unix.SIGTERM))
			errs(t, "tid -1", err, unix.EINVAL)
			_, err = call(unix.SYS_TKILL, 1<<30, uintptr(unix.SIGTERM))
			errs(t, "a tid that is free", err, unix.ESRCH)
		}},
		{"kcmp01", func(t *testing.T) {
			a, b := open(t, os.DevNull), open(t, os.DevNull)
			dup, err := unix.Dup(a)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(dup)
			p, s := lingers(t, lwp.ProcessAttr{})
			for _, c := range []struct {
				one, other int
				same       bool
			}{{a, a, true}, {a, dup, true}, {a, b, false}} {
				for _, pid := range []int{os.Getpid(), p.PID()} {
					got, err := lwp.Kcmp(os.Getpid(), pid, lwp.KcmpFile, uintptr(c.one), uintptr(c.other))
					if err != nil || (got == 0) != c.same {
						t.Errorf("descriptors %v: %d, %v", c, got, err)
					}
				}
			}
			s.dismiss(t, p)
		}},
		{"kcmp02", TestKcmpErrors},
		{"kcmp03", TestFlagShares},
		{"sigaltstack01", func(t *testing.T) {
			// A handler on the stack of a thread that has none left would kill the process.
			th := start(t, func(n *int) { *n = deep(1 << 30) }, new(int))
			var f *lwp.Fault
			if err := th.Join(); !errors.As(err, &f) || f.Reason != lwp.StackOverflow {
				t.Errorf("joined with %v", err)
			}
			var s scene
			lwptest.OnThread(t, func(s *scene) {
				var ss [3]uint64
				s.call(0, unix.SYS_SIGALTSTACK, 0, uintptr(unsafe.Pointer(&ss)), 0)
				s.n[1], s.n[2] = int(ss[0]), int(uint32(ss[1]))
			}, &s)
			if s.errno[0] != 0 || s.n[1] == 0 || s.n[2] != 0 {
				t.Errorf("the thread's signal stack is at %#x, flags %#x", s.n[1], s.n[2])
			}
		}},
		{"sigaltstack02", func(t *testing.T) {
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				flags := [3]uint64{uint64(uintptr(unsafe.Pointer(&s.text))), 0xff, 64 << 10}
				s.call(0, unix.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(&flags)), 0, 0)
				small := [3]uint64{uint64(uintptr(unsafe.Pointer(&s.text))), 0, 100}
				s.call(1, unix.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(&small)), 0, 0)
				return 0
			})
			s.expect(t, 0, "flags", unix.EINVAL)
			s.expect(t, 1, "100 bytes", unix.ENOMEM)
		}},
	})
}

func TestConformanceScheduling(t *testing.T) {
	size := unsafe.Sizeof(unix.CPUSet{})
	conform(t, []caseRow{
		{"sched_getaffinity01", func(t *testing.T) {
			th, s := stays(t, lwp.Attr{})
			var got, mine unix.CPUSet
			errs(t, "of a thread", unix.SchedGetaffinity(th.TID(), &got), 0)
			errs(t, "of this one", unix.SchedGetaffinity(0, &mine), 0)
			if got != mine || got.Count() == 0 {
				t.Errorf("the thread has %v, its starter %v", got, mine)
			}
			_, err := call(unix.SYS_SCHED_GETAFFINITY, 0, size, ^uintptr(0)>>1)
			errs(t, "bad address", err, unix.EFAULT)
			_, err = call(unix.SYS_SCHED_GETAFFINITY, 0, 0, ptr(&got))
			errs(t, "no room", err, unix.EINVAL)
			errs(t, "no such task", unix.SchedGetaffinity(1<<30, &got), unix.ESRCH)
			s.leave.Raise()
			join(t, th)
		}},
		{"sched_setaffinity01", func(t *testing.T) {
			lwptest.NeedRoot(t)
			var all, one, none unix.CPUSet
			unix.SchedGetaffinity(0, &all)
			for cpu := 0; one.Count() == 0; cpu++ {
				if all.IsSet(cpu) {
					one.Set(cpu)
				}
			}
			th, s := stays(t, lwp.Attr{CPUs: one})
			var got unix.CPUSet
			if unix.SchedGetaffinity(th.TID(), &got); got != one {
				t.Errorf("the thread has %v, want %v", got, one)
			}
			_, err := call(unix.SYS_SCHED_SETAFFINITY, 0, size, ^uintptr(0)>>1)
			errs(t, "bad address", err, unix.EFAULT)
			errs(t, "no CPU", unix.SchedSetaffinity(th.TID(), &none), unix.EINVAL)
			errs(t, "no such task", unix.SchedSetaffinity(1<<30, &one), unix.ESRCH)
			c := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				asNobody()
				mask := ^uint64(0)
				s.call(0, unix.SYS_SCHED_SETAFFINITY, 1, 8, uintptr(unsafe.Pointer(&mask)))
				return 0
			})
			c.expect(t, 0, "of another user's", unix.EPERM)
			s.leave.Raise()
			join(t, th)
		}},
		{"sched_setattr01", func(t *testing.T) {
			attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
			th, s := stays(t, lwp.Attr{})
			errs(t, "a thread", unix.SchedSetAttr(th.TID(), &attr, 0), 0)
			errs(t, "no such task", unix.SchedSetAttr(1<<30, &attr, 0), unix.ESRCH)
			_, err := call(unix.SYS_SCHED_SETATTR, 0, 0, 0)
			errs(t, "no attributes", err, unix.EINVAL)
			errs(t, "flags", unix.SchedSetAttr(0, &attr, 1000), unix.EINVAL)
			s.leave.Raise()
			join(t, th)
		}},
		{"sched_setscheduler01", func(t *testing.T) {
			param := int32(0)
			_, err := call(unix.SYS_SCHED_SETSCHEDULER, 1<<30, unix.SCHED_NORMAL, ptr(&param))
			errs(t, "no such task", err, unix.ESRCH)
			_, err = call(unix.SYS_SCHED_SETSCHEDULER, 0, 99, ptr(&param))
			errs(t, "no such policy", err, unix.EINVAL)
			param = 1
			_, err = call(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_NORMAL, ptr(&param))
			errs(t, "a priority without real time", err, unix.EINVAL)
			_, err = call(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_NORMAL, 0)
			errs(t, "no parameters", err, unix.EINVAL)
		}},
		{"sched_setscheduler02", func(t *testing.T) {
			lwptest.NeedRoot(t)
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				asNobody()
				var none [2]uint64
				s.call(1, unix.SYS_PRLIMIT64, 0, unix.RLIMIT_RTPRIO, uintptr(unsafe.Pointer(&none)))
				param := int32(1)
				s.call(0, unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO, uintptr(unsafe.Pointer(&param)))
				return 0
			})
			s.expect(t, 0, "real time without privilege", unix.EPERM)
		}},
		{"sched_setscheduler03", func(t *testing.T) {
			lwptest.NeedCap(t, unix.CAP_SYS_NICE)
			for policy, want := range map[lwp.Policy]uintptr{lwp.PolicyFIFO: unix.SCHED_FIFO, lwp.PolicyRR: unix.SCHED_RR,
				lwp.PolicyBatch: unix.SCHED_BATCH, lwp.PolicyIdle: unix.SCHED_IDLE, lwp.PolicyOther: unix.SCHED_NORMAL} {
				a := lwp.Attr{Policy: policy}
				if policy == lwp.PolicyFIFO || policy == lwp.PolicyRR {
					a.Priority = 1
				}
				th, s := stays(t, a)
				if got, err := call(unix.SYS_SCHED_GETSCHEDULER, uintptr(th.TID())); err != nil || got != want {
					t.Errorf("policy %d: the kernel says %d, %v", policy, got, err)
				}
				s.leave.Raise()
				join(t, th)
			}
		}},
		{"sched_setscheduler04", func(t *testing.T) {
			lwptest.NeedCap(t, unix.CAP_SYS_NICE)
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				const resetOnFork = 0x40000000
				param := int32(1)
				s.call(0, unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO|resetOnFork, uintptr(unsafe.Pointer(&param)))
				s.call(1, unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
				p, err := lwp.StartProcess(func(s *scene) int {
					s.call(2, unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
					return 0
				}, s, lwp.ProcessAttr{})
				if err != nil {
					return 1
				}
				st, _ := p.Wait()
				return st.ExitCode()
			})
			if s.errno[0] != 0 || s.n[1] != unix.SCHED_FIFO|0x40000000 || s.n[2] != unix.SCHED_NORMAL {
				t.Errorf("%v; the parent has policy %#x, the child %#x", syscall.Errno(s.errno[0]), s.n[1], s.n[2])
			}
		}},
		{"sched_yield01", func(t *testing.T) {
			s := inChild(t, lwp.ProcessAttr{}, func(s *scene) int {
				s.call(0, unix.SYS_SCHED_YIELD, 0, 0, 0)
				return 0
			})
			s.expect(t, 0, "sched_yield", 0)
			lwptest.OnThread(t, func(*int) { lwp.Yield() }, new(int))
			runtime.Gosched()
		}},
	})
}
