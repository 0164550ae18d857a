package tls_test

import (
	"sync/atomic"
	"testing"
	"unsafe"

	"lwprt/asm"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/tls"
)

// begin skips where there are no threads, and checks at the end that nothing has leaked.
func begin(t *testing.T) {
	t.Helper()
	lwptest.SkipRace(t)
	lwptest.Leaks(t)
}

func newKey[T any](t *testing.T, destructor func(*T)) tls.Key[T] {
	t.Helper()
	k, err := tls.NewKey(destructor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Delete() })
	return k
}

func want(t *testing.T, what string, got, want error) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// faults is where threads say that something is wrong: bit i for check i.
type faults struct{ bits atomic.Uint64 }

func (f *faults) check(i int, ok bool) {
	if !ok {
		f.bits.Or(1 << i)
	}
}

// run runs body on a thread and reports the checks that failed.
func run(t *testing.T, body func(*faults)) {
	t.Helper()
	f := new(faults)
	lwptest.OnThread(t, body, f)
	for i := range 64 {
		if f.bits.Load()&(1<<i) != 0 {
			t.Errorf("check %d failed on the thread", i)
		}
	}
}

func TestKeyHoldsWhatWasSet(t *testing.T) {
	begin(t)
	k := newKey[uint64](t, nil)
	for range 2 { // the second thread has the memory of the first
		run(t, func(f *faults) {
			_, ok := k.Get()
			f.check(0, !ok)
			f.check(1, k.Ptr() == nil)
			f.check(2, k.Set(0) == nil) // set to zero is set
			v, ok := k.Get()
			f.check(3, ok && v == 0)
			f.check(4, k.Set(7) == nil)
			v, ok = k.Get()
			f.check(5, ok && v == 7)
			p := k.Ptr()
			*p++
			v, _ = k.Get()
			f.check(6, v == 8)
			f.check(7, k.Set(9) == nil)
			f.check(8, *p == 9 && k.Ptr() == p)
		})
	}
}

func TestKeysAreForThreads(t *testing.T) {
	begin(t)
	k := newKey[int](t, nil)
	want(t, "Set on a goroutine", k.Set(1), tls.ErrNotThread)
	if _, ok := k.Get(); ok || k.Ptr() != nil {
		t.Error("the key is set on a goroutine")
	}
	if tls.Current() != nil {
		t.Error("a goroutine has a TCB")
	}
	run(t, func(f *faults) {
		_, err := tls.NewKey[int](nil)
		f.check(0, err == tls.ErrThread)
		f.check(1, k.Delete() == tls.ErrThread)
		f.check(2, k.Set(1) == nil)
		f.check(3, tls.Current() != nil && uintptr(unsafe.Pointer(tls.Current())) == asm.ThreadPointer())
		v, ok := k.Get()
		f.check(4, ok && v == 1)
	})
}

func TestZeroKeyIsNoKey(t *testing.T) {
	begin(t)
	var k tls.Key[int]
	want(t, "Delete", k.Delete(), tls.ErrKey)
	want(t, "Set on a goroutine", k.Set(1), tls.ErrNotThread)
	// Another key, whose place in the TCB the zero key has too.
	first := newKey[int](t, nil)
	run(t, func(f *faults) {
		f.check(0, first.Set(5) == nil)
		_, ok := k.Get()
		f.check(1, !ok && k.Ptr() == nil)
		f.check(2, k.Set(1) == tls.ErrKey)
		v, _ := first.Get()
		f.check(3, v == 5)
	})
}

// crowd is a barrier of threads.
type crowd struct {
	in, wrong atomic.Int64
	open      lwptest.Flag
	key       tls.Key[[4]uint64]
}

func TestValuesOfThreadsAreTheirOwn(t *testing.T) {
	begin(t)
	c := &crowd{key: newKey[[4]uint64](t, nil)}
	const n = 50
	for range n {
		if _, err := lwp.StartAttr(func(c *crowd) {
			me := uint64(c.in.Add(1))
			if c.key.Set([4]uint64{me, me, me, me}) != nil {
				c.wrong.Add(1)
			}
			c.open.Wait()
			for range 100 {
				if v, ok := c.key.Get(); !ok || v != [4]uint64{me, me, me, me} {
					c.wrong.Add(1)
				}
				lwp.Yield()
			}
			c.in.Add(-1)
		}, c, lwp.Attr{Detached: true}); err != nil {
			t.Fatal(err)
		}
	}
	lwptest.Eventually(t, "all to come", func() bool { return c.in.Load() == n })
	c.open.Raise()
	lwptest.Eventually(t, "all to end", func() bool { return len(lwp.Threads()) == 0 })
	if w := c.wrong.Load(); w != 0 || c.in.Load() != 0 {
		t.Errorf("%d wrong values, %d threads did not end", w, c.in.Load())
	}
}

type record struct {
	p *int
	s string
	i any
	f func() int
	b []byte
}

var (
	number  = 42
	bytes   = []byte("kept alive elsewhere")
	records = [2]record{
		{&number, "first", &number, func() int { return 1 }, bytes},
		{nil, "second", number, func() int { return 2 }, bytes[:4]},
	}
	texts = [2]string{"one", "two"}
)

// TestPointersCanBeStoredWhileCollecting sets values with pointers while the
// collector marks, when a common store of a pointer faults on a thread.
func TestPointersCanBeStoredWhileCollecting(t *testing.T) {
	begin(t)
	lwptest.Collect(t)
	kr, ks, kp := newKey[record](t, nil), newKey[string](t, nil), newKey[*int](t, nil)
	for range lwptest.Count(200, 20) {
		run(t, func(f *faults) {
			for i := range 2000 {
				r := &records[i%2]
				f.check(0, kr.Set(*r) == nil)
				f.check(1, ks.Set(texts[i%2]) == nil)
				f.check(2, kp.Set(&number) == nil)
				p := kr.Ptr()
				f.check(3, p.p == r.p && p.s == r.s && p.f() == i%2+1 && len(p.b) == len(r.b))
				s, ok := ks.Get()
				f.check(4, ok && s == texts[i%2])
				n, ok := kp.Get()
				f.check(5, ok && *n == 42)
			}
		})
	}
}

func TestDeletedKeyIsNoKey(t *testing.T) {
	begin(t)
	destroyed := new(atomic.Int32)
	k, err := tls.NewKey(func(*int) { destroyed.Add(1) })
	want(t, "NewKey", err, nil)
	up, leave := new(lwptest.Flag), new(lwptest.Flag)
	f := new(faults)
	th, err := lwp.Start(func(f *faults) {
		f.check(0, k.Set(1) == nil)
		up.Raise()
		leave.Wait()
		f.check(1, k.Set(2) == tls.ErrKey)
	}, f)
	want(t, "Start", err, nil)
	up.Wait()
	want(t, "Delete", k.Delete(), nil)
	want(t, "second Delete", k.Delete(), tls.ErrKey)
	leave.Raise()
	want(t, "Join", th.Join(), nil)
	if bits := f.bits.Load(); bits != 0 {
		t.Errorf("checks %#b failed", bits)
	}
	if n := destroyed.Load(); n != 0 {
		t.Error("the destructor of a deleted key ran")
	}
	// The thread that gets the memory next.
	run(t, func(f *faults) {
		v, ok := k.Get()
		f.check(0, !ok && v == 0)
		f.check(1, k.Ptr() == nil)
		f.check(2, k.Set(3) == tls.ErrKey)
	})
}

// TestNewKeyInOldPlace makes a key where a deleted one was, on threads that
// still hold a value of the old one.
func TestNewKeyInOldPlace(t *testing.T) {
	begin(t)
	// Sizes that no other test uses, so that the place is surely the same.
	type value [11]uint64
	oldEnds, newEnds := new(atomic.Int32), new(atomic.Int32)
	old, err := tls.NewKey(func(*value) { oldEnds.Add(1) })
	want(t, "NewKey", err, nil)
	var fresh tls.Key[value]
	up, leave := new(lwptest.Flag), new(lwptest.Flag)
	f := new(faults)
	th, err := lwp.Start(func(f *faults) {
		f.check(0, old.Set(value{1}) == nil)
		place := old.Ptr()
		up.Raise()
		leave.Wait()
		_, ok := fresh.Get()
		f.check(1, !ok) // not the value of the old key
		f.check(2, fresh.Set(value{2}) == nil)
		f.check(3, fresh.Ptr() == place)
		_, ok = old.Get()
		f.check(4, !ok) // nor the other way round
		f.check(5, old.Set(value{3}) == tls.ErrKey)
		v, ok := fresh.Get()
		f.check(6, ok && v == value{2})
	}, f)
	want(t, "Start", err, nil)
	up.Wait()
	want(t, "Delete", old.Delete(), nil)
	fresh = newKey(t, func(v *value) {
		if *v == (value{2}) {
			newEnds.Add(1)
		}
	})
	want(t, "Delete of the old key", old.Delete(), tls.ErrKey)
	leave.Raise()
	want(t, "Join", th.Join(), nil)
	if bits := f.bits.Load(); bits != 0 {
		t.Errorf("checks %#b failed", bits)
	}
	if o, n := oldEnds.Load(), newEnds.Load(); o != 0 || n != 1 {
		t.Errorf("the old key's destructor ran %d times, the new one's %d", o, n)
	}
}

func TestNoRoomForAnotherKey(t *testing.T) {
	begin(t)
	var keys []tls.Key[byte]
	defer func() {
		for _, k := range keys {
			want(t, "Delete", k.Delete(), nil)
		}
	}()
	for range tls.MaxKeys {
		k, err := tls.NewKey[byte](nil)
		if err != nil {
			t.Fatalf("after %d keys: %v", len(keys), err)
		}
		keys = append(keys, k)
	}
	_, err := tls.NewKey[byte](nil)
	want(t, "one more", err, tls.ErrKeys)
	f := func(f *faults) {
		for i, k := range keys {
			f.check(0, k.Set(byte(i)) == nil)
		}
		for i, k := range keys {
			v, ok := k.Get()
			f.check(1, ok && v == byte(i))
		}
	}
	run(t, f)
	run(t, f)
	// One goes, one comes.
	for i := range keys {
		want(t, "Delete", keys[i].Delete(), nil)
		keys[i], err = tls.NewKey[byte](nil)
		want(t, "NewKey", err, nil)
		_, err = tls.NewKey[byte](nil)
		want(t, "one more", err, tls.ErrKeys)
	}
	run(t, f)
}

// TestNoRoomForLargeKeys runs in a child: the room of a TCB, once it is dealt
// out in one size, is not dealt out in another.
func TestNoRoomForLargeKeys(t *testing.T) {
	if lwptest.MustPass(t, nil) {
		return
	}
	_, err := tls.NewKey[[tls.MaxSize + 1]byte](nil)
	want(t, "a value larger than MaxSize", err, tls.ErrSize)
	_, err = tls.NewKey[[1 << 20]byte](nil)
	want(t, "a value of a MiB", err, tls.ErrSize)
	type large [tls.MaxSize]byte
	var keys []tls.Key[large]
	for {
		k, err := tls.NewKey[large](nil)
		if err != nil {
			want(t, "no room", err, tls.ErrKeys)
			break
		}
		if keys = append(keys, k); len(keys) > tls.MaxKeys {
			t.Fatal("more keys than there can be")
		}
	}
	if len(keys) < 4 {
		t.Errorf("room for %d keys of %d bytes", len(keys), tls.MaxSize)
	}
	lwptest.SkipRace(t)
	// Every one has its own room, to the last byte.
	run(t, func(f *faults) {
		for i, k := range keys {
			f.check(0, k.Set(large{0: byte(i), tls.MaxSize - 1: ^byte(i)}) == nil)
		}
		for i, k := range keys {
			p := k.Ptr()
			f.check(1, p[0] == byte(i) && p[tls.MaxSize-1] == ^byte(i) && p[1] == 0)
		}
		f.check(2, keys[0].Set(large{}) == nil)
	})
	want(t, "Delete", keys[0].Delete(), nil)
	keys[0], err = tls.NewKey[large](nil)
	want(t, "NewKey in the old place", err, nil)
}

func TestKeyOfNothing(t *testing.T) {
	begin(t)
	ended := new(atomic.Int32)
	k := newKey(t, func(*struct{}) { ended.Add(1) })
	l := newKey[byte](t, nil)
	run(t, func(f *faults) {
		_, ok := k.Get()
		f.check(0, !ok)
		f.check(1, l.Set(3) == nil)
		f.check(2, k.Set(struct{}{}) == nil)
		_, ok = k.Get()
		f.check(3, ok)
		v, _ := l.Get()
		f.check(4, v == 3)
	})
	if n := ended.Load(); n != 1 {
		t.Errorf("the destructor ran %d times", n)
	}
}
