package sparkrl;

import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;
import sun.misc.Unsafe;

/** State of the random generator that the whole engine shares. */
final class Chance {
    private static final Unsafe UNSAFE = Copier.unsafe();
    private static final Random SHARED = scala.util.Random$.MODULE$.self();
    private static final long SEED = offset("seed");
    private static final long NEXT = offset("nextNextGaussian");
    private static final long HAS_NEXT = offset("haveNextNextGaussian");

    private final long seed;
    private final double next;
    private final boolean hasNext;

    private Chance(long seed, double next, boolean hasNext) {
        this.seed = seed;
        this.next = next;
        this.hasNext = hasNext;
    }

    static Chance now() {
        return new Chance(
                ((AtomicLong) UNSAFE.getObject(SHARED, SEED)).get(),
                UNSAFE.getDouble(SHARED, NEXT),
                UNSAFE.getBoolean(SHARED, HAS_NEXT));
    }

    static void seed(long seed) {
        SHARED.setSeed(seed);
    }

    void restore() {
        ((AtomicLong) UNSAFE.getObject(SHARED, SEED)).set(seed);
        UNSAFE.putDouble(SHARED, NEXT, next);
        UNSAFE.putBoolean(SHARED, HAS_NEXT, hasNext);
    }

    private static long offset(String field) {
        try {
            return UNSAFE.objectFieldOffset(Random.class.getDeclaredField(field));
        } catch (NoSuchFieldException error) {
            throw new ExceptionInInitializerError(error);
        }
    }
}
