/* forgetful.c - a C extension for CPython that forgets a DECREF: weigh(sequence)
 * takes a new reference to each item, as PySequence_GetItem() hands it out, and
 * keeps it. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef struct {
	PyObject_HEAD char payload[240];
} Record;

static PyTypeObject RecordType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "forgetful.Record",
    .tp_basicsize = sizeof(Record),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
};

static PyObject *weigh(PyObject *module, PyObject *sequence)
{
	Py_ssize_t count = PySequence_Size(sequence);
	Py_ssize_t weight = 0;

	(void)module;
	if (count < 0)
		return NULL;
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *item = PySequence_GetItem(sequence, i);

		if (!item)
			return NULL;
		weight += Py_TYPE(item)->tp_basicsize;
		/* Py_DECREF(item) is what is missing here */
	}
	return PyLong_FromSsize_t(weight);
}

static PyMethodDef methods[] = {
    {"weigh", weigh, METH_O, "The bytes of all items of a sequence."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "forgetful",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_forgetful(void)
{
	PyObject *made;

	if (PyType_Ready(&RecordType) < 0)
		return NULL;
	made = PyModule_Create(&module);
	Py_INCREF(&RecordType); /* the module takes it over */
	if (made)
		PyModule_AddObject(made, "Record", (PyObject *)&RecordType);
	return made;
}
