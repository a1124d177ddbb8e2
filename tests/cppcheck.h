/* cppcheck.h - jansson's loops as a checker that does not read its header must see them (.ci/run). Not compiled. */
#define json_array_foreach(array, index, value) for (index = 0; (value = json_array_get(array, index)) != 0; index++)
#define json_object_foreach(object, key, value)                                                                  \
	for (key = json_object_iter_key(json_object_iter(object)); (value = json_object_get(object, key)) != 0;)
