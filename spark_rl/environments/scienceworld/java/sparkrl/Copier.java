package sparkrl;

import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import sun.misc.Unsafe;

/**
 * Copies an object graph: what can change is copied once, what cannot is shared with the original.
 *
 * <p>The copy keeps the layout of every hash table, so it is right only where an object's identity hash is the same for all
 * objects: tables keyed by identity then look the same in the copy. {@link #exact} says whether that is so.
 *
 * <p>For the same reason an identity map would put all its keys into one chain. Objects already met are therefore found by a
 * hash of their content, which does not change while the graph is copied, and told apart by identity.
 */
final class Copier {
    /** How far into an object its content hash looks. */
    private static final int DEPTH = 2;
    /** Elements of an array that its content hash looks at. */
    private static final int SAMPLE = 4;

    private static final Unsafe UNSAFE = unsafe();
    private static final ClassValue<Shape> SHAPES =
            new ClassValue<>() {
                @Override
                protected Shape computeValue(Class<?> type) {
                    return Shape.of(type);
                }
            };

    private final ArrayDeque<Object> waiting = new ArrayDeque<>();
    private Object[] originals = new Object[1 << 14];
    private Object[] copies = new Object[1 << 14];
    private int[] hashes = new int[1 << 14];
    private int count;

    private Copier() {}

    /** Whether copies are right in this process (it was started with -XX:hashCode=2). */
    static boolean exact() {
        int first = System.identityHashCode(new Object());
        for (int i = 0; i < 8; i++) {
            if (System.identityHashCode(new Object()) != first) {
                return false;
            }
        }
        return true;
    }

    /** An independent copy of all that can be reached from {@code root}. */
    static <T> T copy(T root) throws InstantiationException {
        Copier copier = new Copier();
        @SuppressWarnings("unchecked")
        T copied = (T) copier.twin(root);
        while (!copier.waiting.isEmpty()) {
            Object copy = copier.waiting.pop();
            copier.fill(copier.waiting.pop(), copy);
        }
        return copied;
    }

    static Unsafe unsafe() {
        try {
            Field field = Unsafe.class.getDeclaredField("theUnsafe");
            field.setAccessible(true);
            return (Unsafe) field.get(null);
        } catch (ReflectiveOperationException error) {
            throw new ExceptionInInitializerError(error);
        }
    }

    private void fill(Object original, Object copy) throws InstantiationException {
        if (original instanceof Object[] from) {
            Object[] to = (Object[]) copy;
            for (int i = 0; i < from.length; i++) {
                to[i] = from[i] == null ? null : twin(from[i]);
            }
            return;
        }
        Shape shape = SHAPES.get(original.getClass());
        for (int i = 0; i < shape.primitives.length; i++) {
            long at = shape.primitives[i];
            switch (shape.widths[i]) {
                case 8 -> UNSAFE.putLong(copy, at, UNSAFE.getLong(original, at));
                case 4 -> UNSAFE.putInt(copy, at, UNSAFE.getInt(original, at));
                case 2 -> UNSAFE.putShort(copy, at, UNSAFE.getShort(original, at));
                default -> UNSAFE.putByte(copy, at, UNSAFE.getByte(original, at));
            }
        }
        for (long at : shape.references) {
            Object value = UNSAFE.getObject(original, at);
            if (value != null) {
                UNSAFE.putObject(copy, at, twin(value));
            }
        }
    }

    /** What stands for an object in the copy: itself, what was made for it before, or an empty one that will be filled. */
    private Object twin(Object original) throws InstantiationException {
        Class<?> type = original.getClass();
        Shape shape = SHAPES.get(type);
        if (shape.shared) {
            return original;
        }
        int hash = spread(content(original, shape, DEPTH));
        int slot = hash & (originals.length - 1);
        while (originals[slot] != null) {
            if (originals[slot] == original) {
                return copies[slot];
            }
            slot = (slot + 1) & (originals.length - 1);
        }
        Object copy;
        if (shape.array) {
            int length = Array.getLength(original);
            copy = Array.newInstance(type.getComponentType(), length);
            if (type.getComponentType().isPrimitive()) {
                System.arraycopy(original, 0, copy, 0, length);
            }
        } else {
            copy = UNSAFE.allocateInstance(type);
        }
        originals[slot] = original;
        copies[slot] = copy;
        hashes[slot] = hash;
        if (++count * 2 > originals.length) {
            grow();
        }
        if (!shape.array || original instanceof Object[]) {
            waiting.push(original);
            waiting.push(copy);
        }
        return copy;
    }

    private void grow() {
        Object[] oldOriginals = originals;
        Object[] oldCopies = copies;
        int[] oldHashes = hashes;
        int size = oldOriginals.length * 2;
        originals = new Object[size];
        copies = new Object[size];
        hashes = new int[size];
        for (int i = 0; i < oldOriginals.length; i++) {
            if (oldOriginals[i] != null) {
                int slot = oldHashes[i] & (size - 1);
                while (originals[slot] != null) {
                    slot = (slot + 1) & (size - 1);
                }
                originals[slot] = oldOriginals[i];
                copies[slot] = oldCopies[i];
                hashes[slot] = oldHashes[i];
            }
        }
    }

    private static int spread(int hash) {
        int mixed = (hash ^ (hash >>> 16)) * 0x9E3779B1;
        return mixed ^ (mixed >>> 15);
    }

    private static int content(Object object, Shape shape, int depth) {
        int hash = shape.salt;
        if (object instanceof String text) {
            return text.hashCode();
        }
        if (shape.array) {
            hash = 31 * hash + Array.getLength(object);
            if (depth > 0 && object instanceof Object[] elements) {
                for (int i = 0, met = 0; i < elements.length && met < SAMPLE; i++) {
                    if (elements[i] != null) {
                        hash = 31 * hash + i + content(elements[i], SHAPES.get(elements[i].getClass()), depth - 1);
                        met++;
                    }
                }
            }
            return hash;
        }
        if (shape.shared) {
            return hash;
        }
        for (int i = 0; i < shape.primitives.length; i++) {
            long at = shape.primitives[i];
            long value =
                    switch (shape.widths[i]) {
                        case 8 -> UNSAFE.getLong(object, at);
                        case 4 -> UNSAFE.getInt(object, at);
                        case 2 -> UNSAFE.getShort(object, at);
                        default -> UNSAFE.getByte(object, at);
                    };
            hash = 31 * hash + Long.hashCode(value);
        }
        if (depth > 0) {
            for (long at : shape.references) {
                Object value = UNSAFE.getObject(object, at);
                hash = 31 * hash + (value == null ? 0 : content(value, SHAPES.get(value.getClass()), depth - 1));
            }
        }
        return hash;
    }

    /** What of a class is copied, and how. */
    private static final class Shape {
        /** Libraries whose objects never change once made. */
        private static final String[] CONSTANT = {
            "java.lang.", "java.util.regex.", "scala.math.", "scala.reflect.", "scala.util.matching."
        };

        final boolean shared;
        final boolean array;
        final int salt;
        final long[] references;
        final long[] primitives;
        final byte[] widths;

        private Shape(Class<?> type, boolean shared, List<Field> fields) {
            this.shared = shared;
            array = type.isArray();
            salt = type.getName().hashCode();
            references =
                    fields.stream().filter(f -> !f.getType().isPrimitive()).mapToLong(UNSAFE::objectFieldOffset).toArray();
            List<Field> plain = fields.stream().filter(f -> f.getType().isPrimitive()).toList();
            primitives = plain.stream().mapToLong(UNSAFE::objectFieldOffset).toArray();
            widths = new byte[plain.size()];
            for (int i = 0; i < widths.length; i++) {
                widths[i] = width(plain.get(i).getType());
            }
        }

        static Shape of(Class<?> type) {
            if (type.isArray()) {
                return new Shape(type, false, List.of());
            }
            if (constant(type)) {
                return new Shape(type, true, List.of());
            }
            List<Field> fields = new ArrayList<>();
            for (Class<?> part = type; part != null; part = part.getSuperclass()) {
                for (Field field : part.getDeclaredFields()) {
                    if (!Modifier.isStatic(field.getModifiers())) {
                        fields.add(field);
                    }
                }
            }
            return new Shape(type, false, fields);
        }

        /** Strings, numbers, classes, functions, and Scala's single objects (of which a second one would be another thing). */
        private static boolean constant(Class<?> type) {
            if (type.isEnum() || type.isHidden()) {
                return true;
            }
            for (String prefix : CONSTANT) {
                if (type.getName().startsWith(prefix)) {
                    return true;
                }
            }
            try {
                return Modifier.isStatic(type.getDeclaredField("MODULE$").getModifiers());
            } catch (NoSuchFieldException none) {
                return false;
            }
        }

        private static byte width(Class<?> type) {
            if (type == long.class || type == double.class) {
                return 8;
            }
            if (type == int.class || type == float.class) {
                return 4;
            }
            return (byte) (type == short.class || type == char.class ? 2 : 1);
        }
    }
}
